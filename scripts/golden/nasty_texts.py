"""Texts that tokenizers disagree about: the same list in every run, written into the golden token ids by scripts/golden/token_ids.py."""

import itertools
import random

# Every token that one of the golden tokenizers holds as special or added, and texts that only look like one.
MARKERS = (
    "<s>", "</s>", "<unk>", "<|endoftext|>", "<|padding|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<tool_call>", "</tool_call>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|reserved_special_token_7|>",
    "[INST]", "[/INST]",
    "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "<|left|>", "<|right|>", "<|both|>", "<|word|>", "<plain>", "Ångström",
)  # fmt: skip
LOOK_ALIKES = (
    "<s >", "< s>", "<S>", "</s", "</S>", "</ s>", "<|im_end", "im_end|>", "<|im_end |>", "<|IM_END|>", "<|im_start|",
    "<|<|im_end|>|>", "<|eot_id",
    "<|endoftext", "<|endoftext|", "[INST", "INST]", "[ INST ]", "[/INST", "[inst]", "<0x0A>", "<0x>", "<0xFF>",
    "<0xE4><0xBD><0xA0>", "<think", "think>",
    "</think", "<unk", "unk>", "<|both|", "<|wordy|>", "x<|word|>y", "<|word|>s", "<plain >", "Ångström's",
    "A\u030angstro\u0308m", "Angström",
)  # fmt: skip
EMOJI = (
    "🙂", "🎉🎉", "👩‍👩‍👧", "👨🏿‍🚀", "👍🏽", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "❤", "1️⃣", "🧑🏻‍🤝‍🧑🏿", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☃︎",
    "😀\u200d", "\u200d😀", "🏽",
)  # fmt: skip
SCRIPTS = (
    "你好", "今天天气很好。", "請寫一封信", "こんにちは、世界", "ｶﾞｷﾞｸﾞ", "안녕하세요",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "𠮷野家", "㍿㍻", "שָׁלוֹם", "مَرْحَبًا بِكَ",
    "\u202eabc\u202c", "\u2067אב\u2069 ab", "हिन्दी क्षत्रिय", "ไทยไม่มีช่องว่าง", "བོད་སྐད་", "ქართული", "Հայերեն",
    "Ελληνικά ΐ", "Ђорђе", "İstanbul ı",
    "ﬁ ﬂ ½ ² ℌ", "Ǆ ǅ ǆ", "ẞß", "ａｂｃ１２３", "𝕳𝖊𝖑𝖑𝖔", "①②③", "٣٤٥ ४५६ 〇一二",
)  # fmt: skip
COMBINING = (
    "e\u0301", "\u00e9", "a\u030a\u0301", "\u01fb", "\u0301", " \u0301x", "q\u0307\u0323", "q\u0323\u0307", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯",
    "\u1e9b\u0323", "\u212b", "\u2126",
    "n\u0303n\u0303", "\u0344", "\u2adc", "\uf900", "\U0002f800", "가\u11a8", "\u0958",
)  # fmt: skip
SPACES = (
    " ", "  ", "   ", "    ", " " * 7, " " * 16, " " * 24, " " * 25, " " * 60, "\t", "\t\t", "\n", "\n\n", "\n\n\n\n",
    "\r", "\r\n", "\r\n\r\n", " \n", "\n ",
    " \t ", "\u00a0", "\u00a0\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u200b",
    "\ufeff", "\u1680", "\u205f", "\u180e",
    "\u2581", "\u2581\u2581", " \u2581", "\u2581 ", "\u2581a", "a\u2581", "a\u2581b", "a \u2581 b", "\u2581\u2581a",
    "Ġ", "Ċ", "ĠHello", "Ã©",
)  # fmt: skip
CONTROL = (*map(chr, (*range(0x20), 0x7F, 0x80, 0x9F, 0xAD)), "a\x00b", "\x00\x00", "\x1b[31mred\x1b[0m", "a\x08b", "\x00<s>\x00")
RARE = (
    "\ue000", "\ue000answer-0\ue001", "\uf8ff", "\U000f0000", "\U0010fffd", "\ufffd", "\ufffd\ufffd", "\ufffe",
    "\uffff", "\U0001ffff", "\u0378", "\U000e0fff",
    "\U0001fbff", "\u2fff", "\U000e0041", "\ufe0f", "\u034f", "\ufff9a\ufffa", "\U0003fffe", "\U0010ffff", "\ud7ff",
    "\U00010000", "\u07ff\u0800",
)  # fmt: skip
NUMBERS = (
    "0", "7", "42", "123", "1234", "12345678", "3.14159", "-1e-10", "1,000,000", "0x1F", "1/2", "12 34", "1 2 3",
    "999 999", "2024-02-29T23:59:60Z", "৭৮",
    "1st 22nd", "IPv6 ::1", "+49 (0)30", "50%", "x1y22z333", "1_000",
)  # fmt: skip
CODE = (
    "def add(a, b):\n    return a + b\n", "if x:\n\tpass\n\t\tpass", "for(int i=0;i<10;++i){a[i]=i;}",
    "#include <stdio.h>", "<html><body/></html>", "a->b; c::d; e!=f",
    '{"a": [1, 2.5, null], "b": "\\u00e9"}', "SELECT * FROM t WHERE a='b';", "x = f\"{y!r}\"", "```python\nprint(1)\n```",
    "$HOME/.config", "C:\\new\\table",
    "https://example.org/a?b=c&d=%20#e", "user@example.org", "a\\nb\\x00", "//////", "-----", "......", "!!!???",
    "(((())))", "'''\"\"\"", "~`^|\\", "==>>", "…—–",
)  # fmt: skip
WORDS = (
    "Hello", " Hello", "Hello ", "  Hello", "Hello  hello", "\nHello", "hello\n", "I'm sure", "I'M SURE",
    "we'll see they've", "l’été", "don''t", "O'Neill's",
    "CamelCaseWord", "snake_case_word", "kebab-case", "ALLCAPS", "iPhone", "naïve café", "Ünïcödé", "rock'n'roll",
    "a.b.c", "e.g., i.e.", "Dr. No", "hello ,world .",
    "Hello hello Hello", "The cook asked for salt", "of course !", "it is 12 o'clock now",
    "Pneumonoultramicroscopicsilicovolcanoconiosis", "a" * 40, "ab" * 300,
    "x" * 1000, "你" * 120, "🙂" * 50, "é" * 64,
)  # fmt: skip


def nasty_texts() -> list[str]:
    """More than 500 different texts without half surrogates: what each table holds, markers in all surroundings, and mixtures."""
    singles = [*MARKERS, *LOOK_ALIKES, *EMOJI, *SCRIPTS, *COMBINING, *SPACES, *CONTROL, *RARE, *NUMBERS, *CODE, *WORDS]
    texts = ["", *singles]
    for marker in MARKERS:
        texts += [f"{marker}x", f"x{marker}", f"a {marker} b", f" {marker} ", f"{marker}{marker}", f"\n{marker}\n\n"]
        texts += [f"你{marker}🙂", f"{marker}  Hello"]
    texts += [first + second for first, second in itertools.pairwise(MARKERS)]
    texts += [f"a{space}b" for space in SPACES[:20]] + [f"{space}Hello{space}" for space in SPACES[:14]]
    chance = random.Random(11)
    glue = ["", "", " ", "  ", "\n", "\t", "\u2581"]
    for _ in range(120):
        parts = chance.choices(singles[: -len(WORDS)], k=chance.randint(2, 6)) + chance.choices(WORDS[:28], k=2)
        chance.shuffle(parts)
        texts.append("".join(part + chance.choice(glue) for part in parts))
    ranges = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x4E00, 0x4EFF), (0x1F300, 0x1F6FF), (0, 0x1F), (0x10000, 0x10FFFF)]
    ranges.append((0xE000, 0xFFFF))
    for _ in range(60):
        texts.append("".join(chr(chance.randint(*chance.choice(ranges))) for _ in range(chance.randint(1, 24))))
    return list(dict.fromkeys(texts))
