"""The keys of the preference losses: names, weights, what follows from what, what is not read, and what cannot be."""

import pytest

from paddlealign.arguments.losses import LOSS_ALIASES, LOSSES, UNPAIRED_LOSSES
from paddlealign.arguments.objective_checks import loss_mixture
from tests.least_arguments import refused, run

KEYS_OF_LOSSES = {"beta": 0.3, "label_smoothing": 0.1, "ipo_average": "sum", "simpo_gamma": 1.0, "dpop_lambda": 3.0, "discopop_tau": 0.1}
KEYS_OF_LOSSES |= {"desirable_weight": 2.0, "undesirable_weight": 2.0}
EVERY = {**LOSSES, **UNPAIRED_LOSSES}


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_reads_its_keys_and_tells_the_others(tmp_path, name):
    smoothing = {"label_smoothing": 0.1} if name == "exo_pair" else {}
    for key, value in KEYS_OF_LOSSES.items():
        notes = run(tmp_path, "dpo", loss_type=name, **{**smoothing, key: value}).notes
        told = any(note.startswith("Not read in this run") and key in note for note in notes)
        assert told is (key not in EVERY[name].reads), key


@pytest.mark.parametrize("name", LOSSES)
def test_losses_without_a_reference_say_that_they_have_none(tmp_path, name):
    smoothing = {"label_smoothing": 0.1} if name == "exo_pair" else {}
    arguments = run(tmp_path, "dpo", loss_type=name, ref_model_name_or_path="r", reference_mode="frozen", **smoothing)
    alone = LOSSES[name].compares == "policy"
    assert arguments.objective.reference_free is alone
    told = "ref_model_name_or_path (the loss has no reference), reference_mode (the loss has no reference)"
    assert any(told in note for note in arguments.notes) is alone


@pytest.mark.parametrize(("alias", "name"), LOSS_ALIASES.items())
def test_other_names_of_losses_are_told_once(tmp_path, alias, name):
    arguments = run(tmp_path, "dpo", dpo_loss_type=alias)
    assert arguments.objective.loss_type == name and arguments.sources["loss_type"] == "derived"
    assert f"loss_type is read as {name}: {alias} is {name}." in arguments.notes


def test_losses_are_mixed_with_weights(tmp_path):
    def mixture(**keys):
        return loss_mixture(run(tmp_path, "dpo", **keys).objective)

    assert mixture() == {"sigmoid": 1.0}
    assert mixture(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1]) == {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
    assert mixture(loss_type="sigmoid, hinge", loss_weights="0.5,2") == {"sigmoid": 0.5, "hinge": 2.0}
    assert mixture(loss_type="sigmoid", loss_weights=0.5) == {"sigmoid": 0.5}
    assert mixture(pref_loss_ratio=0.5, sft_loss_ratio=0.1) == {"sigmoid": 0.5, "sft": 0.1}
    assert mixture(loss_type="sigmoid,sft", pref_loss_ratio=0.5, sft_loss_ratio=0.1) == {"sigmoid": 0.5, "sft": 1.1}
    assert mixture(pref_loss_ratio=0, sft_loss_ratio=0.1) == {"sft": 0.1}
    assert mixture(loss_type="orpo", pref_loss_ratio=0.1) == {"orpo": 0.1, "sft": 1.0}
    assert mixture(loss_type="cpo", sft_loss_ratio=0.0) == {"cpo": 1.0}
    assert mixture(loss_type="simpo") == {"simpo": 1.0}
    for alias in ("rpo_alpha", "cpo_alpha", "pref_ftx"):
        assert mixture(**{alias: 0.3}) == {"sigmoid": 1.0, "sft": 0.3}


def test_what_a_papers_loss_brings_is_told(tmp_path):
    arguments = run(tmp_path, "dpo", loss_type="orpo")
    assert "sft_loss_ratio is not set: 1, as the paper of orpo has it." in arguments.notes
    assert arguments.sources["sft_loss_ratio"] == arguments.sources["reference_free"] == "derived"


def test_keys_of_divergences_and_mixtures_are_told_where_nothing_reads_them(tmp_path):
    def told(**keys):
        return " ".join(run(tmp_path, "dpo", dev_dataset_path=None, **keys).notes)

    assert "f_alpha_divergence_coef (f_divergence_type is another)" in told(f_alpha_divergence_coef=0.2)
    assert "0.2: 1 is the reverse KL, 0 the forward KL" in told(f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.2)
    assert "not read" not in told(f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.2).lower()
    assert "f_divergence_type (loss_type is simpo)" in told(loss_type="simpo", f_divergence_type="reverse_kl")
    assert "pref_loss_ratio (loss_type is sft)" in told(loss_type="sft", pref_loss_ratio=2.0)
    assert "reference_cache_dir (the loss has no reference)" in told(reference_free=True, reference_cache_dir="c")


def test_keys_of_references_are_told_where_nothing_reads_them(tmp_path):
    def told(**keys):
        return " ".join(run(tmp_path, "dpo", dev_dataset_path=None, **keys).notes)

    moving = {"sync_ref_model": True, "ref_model_mixup_alpha": 0.5, "ref_model_sync_steps": 3}
    assert told(reference_mode="frozen", ref_lora_path="a", reference_dtype="float32", **moving) == ""
    for key in moving:
        assert f"{key} (the loss has no reference)" in told(loss_type="simpo", **moving)
    still = told(ref_model_mixup_alpha=0.5, ref_model_sync_steps=3)
    assert "ref_model_mixup_alpha (sync_ref_model is false), ref_model_sync_steps (sync_ref_model is false)" in still
    assert "reference_cache_dir (reference_mode is frozen)" in told(reference_mode="frozen", reference_cache_dir="c")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"loss_type": "sigmiod"}, "loss_type sigmiod: unknown: sigmiod (is sigmoid meant?). Allowed"),
        ({"loss_type": "sigmoid,nonsense"}, "unknown: nonsense"),
        ({"loss_type": ","}, "it names no loss"),
        ({"loss_type": "hinge,slic"}, "stands in it twice"),
        ({"loss_type": 3}, "unknown: 3"),
        ({"loss_type": True}, "loss_type: true is not allowed"),
        ({"loss_type": {"a": 1}}, "loss_type: "),
        ({"loss_type": "sigmoid,hinge", "loss_weights": [1.0]}, "loss_weights 1.0: 1 numbers, and loss_type has 2 losses"),
        ({"loss_type": "kto,sigmoid"}, "loss_type: kto trains on labelled rows"),
        ({"loss_type": "kto", "sft_loss_ratio": 0.1, "ld_alpha": 0.5}, "sft_loss_ratio, ld_alpha: kto trains on labelled rows"),
        ({"loss_type": "kto", "f_divergence_type": "js_divergence"}, "f_divergence_type: kto trains"),
        ({"loss_type": "kto", "reference_free": True, "loss_weights": "1"}, "loss_weights, reference_free: kto trains"),
        ({"loss_type": "kto", "pref_loss_ratio": 2}, "pref_loss_ratio: kto trains"),
        ({"loss_type": "kto", "use_weighting": True}, "use_weighting: kto trains"),
        ({"loss_type": "aot,sigmoid", "use_weighting": True}, "use_weighting: aot pairs answers by rank"),
        ({"loss_type": "sft", "use_weighting": True}, "there is no loss over pairs"),
        ({"ref_model_mixup_alpha": 0}, "ref_model_mixup_alpha: 0.0 is not allowed"),
        ({"ref_model_mixup_alpha": 1.1}, "allowed: above 0 to 1"),
        ({"ref_model_sync_steps": 0}, "ref_model_sync_steps: 0 is not allowed"),
        ({"reference_dtype": "int8"}, "reference_dtype"),
        ({"sync_ref_model": True}, "sync_ref_model: cached log-probabilities are those of a reference that stays as it is"),
        ({"desirable_weight": 0}, "desirable_weight"),
        ({"undesirable_weight": 0}, "undesirable_weight"),
        ({"loss_weights": "a lot"}, "numbers above 0 are needed"),
        ({"loss_weights": [-1]}, "numbers above 0 are needed"),
        ({"loss_weights": "inf"}, "numbers above 0 are needed"),
        ({"loss_type": "exo_pair"}, "label_smoothing 0: exo_pair takes the logarithm"),
        ({"loss_type": "kto_pair", "reference_free": True}, "reference_free: kto_pair looks at each answer's ratio"),
        ({"loss_type": "nca_pair", "f_divergence_type": "js_divergence"}, "f_divergence_type js_divergence: nca_pair is not made for it"),
        ({"reference_free": True, "f_divergence_type": "forward_kl"}, "without a reference there is no divergence"),
        ({"pref_loss_ratio": 0}, "leave nothing to train on"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"simpo_gamma": -1}, "simpo_gamma"),
        ({"dpop_lambda": -1}, "dpop_lambda"),
        ({"discopop_tau": 0}, "discopop_tau"),
        ({"f_alpha_divergence_coef": 1.5}, "f_alpha_divergence_coef"),
        ({"ld_alpha": 1.1}, "ld_alpha"),
        ({"pref_loss_ratio": -1}, "pref_loss_ratio"),
        ({"sft_loss_ratio": -1}, "sft_loss_ratio"),
        ({"ipo_average": "mean"}, "allowed: token, sum"),
        ({"f_divergence_type": "kl"}, "allowed: reverse_kl"),
    ],
)
def test_what_cannot_be_is_refused_by_key(tmp_path, keys, said):
    assert said in refused(tmp_path, "dpo", **keys)


def test_paddlenlps_variants_start(tmp_path):
    """simpo and or take no reference there, and orpo brings its cross-entropy."""
    simpo = run(tmp_path, "dpo", loss_type="simpo", simpo_gamma=1.0, dev_dataset_path=None)
    assert (simpo.objective.simpo_gamma, simpo.objective.reference_free, simpo.notes) == (1.0, True, ())
    dpop = run(tmp_path, "dpo", dpo_loss_type="dpop", dpop_lambda=20, sft_loss_ratio=0.1)
    assert loss_mixture(dpop.objective) == {"dpop": 1.0, "sft": 0.1} and dpop.objective.dpop_lambda == 20.0
