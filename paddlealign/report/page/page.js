// The page but for its charts: the sample filter, the place in the page, and the question for news where it is served live.
"use strict";
(() => {
  // Samples --------------------------------------------------------------------------------------
  const search = document.getElementById("search"), filter = document.getElementById("filter");
  if (search) {
    const pairs = [...document.querySelectorAll(".pair:not(.head)")].map((element) => ({ element, text: element.textContent.toLowerCase() }));
    const sift = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = filter.value;
      let shown = 0;
      for (const { element, text } of pairs) {
        const { change, verdict } = element.dataset;
        const fits = !wanted || change === wanted || verdict === wanted || (wanted === "changed" && ["better", "worse"].includes(change));
        element.hidden = !(fits && words.every((word) => text.includes(word)));
        shown += !element.hidden;
      }
      document.getElementById("count").textContent = `${shown} of ${pairs.length}`;
      document.getElementById("nothing").hidden = shown > 0;
    };
    search.addEventListener("input", sift);
    filter.addEventListener("change", sift);
  }

  // Where the reader is ----------------------------------------------------------------------------
  const links = [...document.querySelectorAll("nav a")];
  const here = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) links.forEach((link) => link.classList.toggle("here", link.hash === "#" + entry.target.id));
    }
  }, { rootMargin: "-30% 0px -65% 0px" });
  document.querySelectorAll("main > section").forEach((section) => here.observe(section));

  // News -------------------------------------------------------------------------------------------
  if (JSON.parse(document.getElementById("data").textContent).live) {
    const ask = async () => (await fetch("version", { cache: "no-store" })).text();
    let version = null;
    setInterval(async () => {
      if (document.hidden) return;
      try {
        const now = await ask();
        if (version !== null && now !== version) location.reload();
        version = now;
      } catch { /* the server has ended; what is shown stays */ }
    }, 5000);
  }
})();
