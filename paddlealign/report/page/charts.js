// The charts of the page (BokehJS draws them), what steers them, and the theme.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const charts = []; // those that are drawn: {card, figure, curves, kind}
  const several = data.runs.length > 1;
  let smoothing = 0;
  let range = null; // of steps; null: all

  // What a reader chose stays for the next page, where the browser allows it.
  const remember = (name, value) => { try { localStorage.setItem("paddlealign-" + name, value); } catch { /* private mode */ } };
  const recall = (name) => { try { return localStorage.getItem("paddlealign-" + name); } catch { return null; } };

  const style = getComputedStyle(root);
  const shades = new Map(); // of the theme; asking the style each time makes the browser work it out anew
  const colour = (name) => {
    if (!shades.has(name)) shades.set(name, style.getPropertyValue("--" + name).trim());
    return shades.get(name);
  };
  const ink = (number) => colour("c" + (number % 8));

  // Theme ----------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const applyTheme = (wanted) => {
    root.dataset.theme = wanted ?? recall("theme") ?? (dark.matches ? "dark" : "light");
    shades.clear();
    for (const swatch of document.querySelectorAll(".swatch[data-colour]")) swatch.style.background = ink(Number(swatch.dataset.colour));
    charts.forEach(paint);
  };

  function paint(chart) {
    const { figure } = chart;
    const [card, muted, line, text] = ["card", "muted", "line", "text"].map(colour);
    figure.setv({ background_fill_color: card, border_fill_color: card, outline_line_color: null });
    for (const axis of [...figure.below, ...figure.left]) {
      axis.setv({
        major_label_text_color: muted, axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null,
        major_label_text_font: "system-ui, sans-serif", major_label_text_font_size: "11px", axis_label_text_color: muted,
      });
    }
    for (const part of figure.center) if (part instanceof Bokeh.Grid) part.setv({ grid_line_color: line });
    if (chart.zero) chart.zero.setv({ line_color: text });
    chart.curves.forEach((curve) => curve.paint());
    legend(chart);
  }

  // Curves ---------------------------------------------------------------------------------------
  const colourOf = (curve) => (several ? curve.run : curve.role);
  // Of several runs the colour tells the run, so the dashes tell the rest: training and dev rows, chosen and rejected answers.
  const DASHES = [[], [2, 3], [7, 3], [7, 3, 2, 3]];
  const dashesOf = (curve) => DASHES[2 * curve.dev + (several ? curve.side : 0)];

  // An exponential mean without a pull towards the first point: each weight is divided by the weights so far.
  function smooth(values) {
    let mean = 0, weights = 0;
    return values.map((value) => {
      mean = smoothing * mean + (1 - smoothing) * value;
      weights = smoothing * weights + (1 - smoothing);
      return mean / weights;
    });
  }

  function newFigure(kind, tools) {
    const figure = Bokeh.Plotting.figure({
      height: 230, sizing_mode: "stretch_width", toolbar_location: null, tools, min_border: 4,
      x_range: new Bokeh.Range1d({ start: 0, end: 1 }), y_range: new Bokeh.Range1d({ start: 0, end: 1 }),
    });
    figure.center.filter((part) => part instanceof Bokeh.Grid && part.dimension === 0).forEach((grid) => { grid.visible = kind === "histograms"; });
    return figure;
  }

  // A finger that moves over a chart scrolls the page; only a mouse draws a box to zoom.
  const withMouse = matchMedia("(pointer: fine)").matches;
  const tip = (rows) => new Bokeh.HoverTool({ tooltips: rows, mode: "vline", point_policy: "snap_to_data", line_policy: "nearest", attachment: "horizontal" });

  function drawCurves(card, spec) {
    const tools = [tip([["", "$name"], ["step", "@x{0,0}"], ["", "@y{0.[00000]}"]])];
    if (withMouse) tools.push(new Bokeh.BoxZoomTool({ dimensions: "width" }));
    const figure = newFigure("curves", tools);
    figure.below[0].formatter = new Bokeh.NumeralTickFormatter({ format: "0,0" });
    const most = Math.max(...spec.curves.map((curve) => Math.max(...curve.y.map(Math.abs))));
    if (most < 1e-3) figure.left[0].formatter = new Bokeh.PrintfTickFormatter({ format: "%.1e" });
    const chart = { card, figure, kind: "curves", curves: [] };
    chart.curves = spec.curves.map((curve) => {
      const name = several ? `${data.runs[curve.run]}: ${curve.label}` : curve.label;
      const few = curve.x.length < 12;
      const dash = dashesOf(curve);
      const raw = new Bokeh.ColumnDataSource({ data: { x: curve.x, y: curve.y } });
      const soft = new Bokeh.ColumnDataSource({ data: { x: [], y: [] } });
      const paths = [figure.line({ field: "x" }, { field: "y" }, { source: raw, name, line_dash: dash, line_width: 1.6 }),
        figure.line({ field: "x" }, { field: "y" }, { source: soft, name, line_dash: dash, line_width: 2 })];
      const dots = few ? [figure.scatter({ field: "x" }, { field: "y" }, { source: raw, name, size: 5 })] : [];
      tools[0].renderers = tools[0].renderers === "auto" ? [paths[0], paths[1]] : [...tools[0].renderers, paths[0], paths[1]];
      return {
        name, kind: curve.label, dash, visible: true, number: colourOf(curve), run: curve.run, x: curve.x, y: curve.y,
        paint() {
          const shade = ink(this.number);
          const blurred = smoothing > 0 && !few;
          paths[0].glyph.setv({ line_color: shade, line_alpha: blurred ? 0.22 : 1 });
          paths[1].glyph.setv({ line_color: shade });
          dots.forEach((dot) => dot.glyph.setv({ fill_color: shade, line_color: shade }));
          paths[0].visible = this.visible;
          paths[1].visible = this.visible && blurred;
          dots.forEach((dot) => { dot.visible = this.visible; });
        },
        smooth() {
          if (few) return;
          soft.data = smoothing > 0 ? { x: curve.mean_x ?? curve.x, y: smooth(curve.mean_y ?? curve.y) } : { x: [], y: [] };
        },
      };
    });
    chart.curves.forEach((curve) => curve.smooth());
    // A box that was drawn over this chart is for all of them.
    let waiting = false;
    const moved = () => {
      if (waiting || chart.setting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; show([figure.x_range.start, figure.x_range.end]); });
    };
    figure.x_range.properties.start.change.connect(moved);
    figure.x_range.properties.end.change.connect(moved);
    return chart;
  }

  // The steps that any run has.
  const curves = data.charts.flatMap((spec) => spec.curves);
  const [first, last] = [Math.min(...curves.map((it) => it.x[0])), Math.max(...curves.map((it) => it.x[it.x.length - 1]))];

  function fit(chart) {
    if (chart.kind !== "curves") return;
    const [from, to] = range ?? [first, last];
    let low = Infinity, high = -Infinity;
    for (const curve of chart.curves) {
      if (!curve.visible) continue;
      curve.x.forEach((step, place) => {
        if (step >= from && step <= to) { low = Math.min(low, curve.y[place]); high = Math.max(high, curve.y[place]); }
      });
    }
    const edge = (to - from || 1) * 0.02;
    chart.setting = true;
    chart.figure.x_range.setv({ start: range ? from : from - edge, end: range ? to : to + edge });
    if (low <= high) {
      const slack = (high - low || Math.abs(high) || 1) * 0.06;
      chart.figure.y_range.setv({ start: low - slack, end: high + slack });
    }
    chart.setting = false;
    chart.card.dataset.start = chart.figure.x_range.start;
    chart.card.dataset.end = chart.figure.x_range.end;
  }

  function show(wanted) {
    range = wanted;
    document.querySelectorAll("[data-range]").forEach((button) => button.classList.toggle("on", range === null && button.dataset.range === "1"));
    charts.forEach(fit);
  }

  // Histograms -----------------------------------------------------------------------------------
  function drawHistogram(card, spec) {
    const hover = tip([["", "$name"], ["from", "@left{0.[000]}"], ["to", "@right{0.[000]}"], ["share", "@top{0.0%}"]]);
    const figure = newFigure("histograms", [hover]);
    const [left, right] = [spec.edges.slice(0, -1), spec.edges.slice(1)];
    const chart = { card, figure, kind: "histograms", curves: [] };
    const most = Math.max(...spec.series.flatMap((set) => set.counts));
    figure.x_range.setv({ start: left[0], end: right[right.length - 1] });
    figure.y_range.setv({ start: 0, end: most * 1.08 || 1 });
    figure.left[0].formatter = new Bokeh.NumeralTickFormatter({ format: "0%" });
    if (left[0] < 0 && right[right.length - 1] > 0) {
      chart.zero = new Bokeh.Span({ location: 0, dimension: "height", line_width: 1, line_alpha: 0.5, line_dash: [4, 3] });
      figure.add_layout(chart.zero);
    }
    hover.renderers = [];
    chart.curves = spec.series.map((set, number) => {
      const source = new Bokeh.ColumnDataSource({ data: { left, right, top: set.counts, bottom: set.counts.map(() => 0) } });
      const bars = figure.quad({ field: "left" }, { field: "right" }, { field: "bottom" }, { field: "top" }, { source, name: set.name });
      hover.renderers = [...hover.renderers, bars];
      const ahead = set.above === null ? "" : `, ${(100 * set.above).toFixed(1)} % above 0`;
      return {
        name: set.name, told: `${set.name} · mean ${Number(set.mean.toPrecision(4))}${ahead}`, visible: true, number,
        paint() { bars.visible = this.visible; bars.glyph.setv({ fill_color: ink(number), fill_alpha: 0.45, line_color: ink(number), line_alpha: 0.9, line_width: 0.6 }); },
        smooth() {},
      };
    });
    return chart;
  }

  // Cards ----------------------------------------------------------------------------------------
  // A chart's curves in groups that are shown and hidden together: of one run each curve; of several those of a run, and those of a kind.
  function groupsOf(chart) {
    const each = chart.curves.map((curve) => ({ told: curve.told ?? curve.name, curves: [curve], ink: ink(curve.number), dash: curve.dash ?? [] }));
    if (!several || chart.kind !== "curves") return each;
    const shared = (told, wanted, look) => ({ told, curves: chart.curves.filter(wanted), ...look });
    const runs = [...new Set(chart.curves.map((it) => it.run))].map((run) => shared(data.runs[run], (it) => it.run === run, { ink: ink(run), dash: [] }));
    const kinds = [...new Set(chart.curves.map((it) => it.kind))].map((kind) => {
      const wanted = (it) => it.kind === kind;
      return shared(kind, wanted, { ink: colour("muted"), dash: chart.curves.find(wanted).dash });
    });
    return kinds.length > 1 ? [...runs, ...kinds] : runs;
  }

  // The dashes as a picture that repeats itself.
  function swatch(ink, dash) {
    if (!dash.length) return ink;
    let at = 0;
    const parts = dash.map((length, place) => `${place % 2 ? "transparent" : ink} ${at}px ${at += length}px`);
    return `repeating-linear-gradient(90deg, ${parts.join(", ")})`;
  }

  function legend(chart) {
    const place = chart.card.querySelector(".legend");
    place.replaceChildren(...groupsOf(chart).map((group) => {
      const entry = document.createElement("button");
      const mark = document.createElement("i");
      const told = group.curves.some((curve) => curve.visible);
      entry.type = "button";
      entry.setAttribute("aria-pressed", String(told));
      mark.className = "swatch";
      mark.style.background = swatch(group.ink, group.dash);
      entry.append(mark, group.told);
      entry.addEventListener("click", () => { group.curves.forEach((curve) => { curve.visible = !told; }); paint(chart); fit(chart); });
      return entry;
    }));
  }

  async function draw(card) {
    const { kind, index } = card.dataset;
    const spec = data[kind === "curves" ? "charts" : "histograms"][Number(index)];
    const chart = kind === "curves" ? drawCurves(card, spec) : drawHistogram(card, spec);
    charts.push(chart);
    paint(chart);
    fit(chart);
    await Bokeh.Plotting.show(chart.figure, card.querySelector(".plot"));
    card.dataset.drawn = "true";
  }

  // Only what is looked at is drawn, and one chart after the other, so that the first is there early and the page answers in between.
  const awaited = [];
  async function drawAwaited() {
    while (awaited.length) {
      try {
        await draw(awaited[0]);
        await new Promise((shown) => setTimeout(shown));
      } finally {
        awaited.shift();
      }
    }
  }
  const onScreen = ({ boundingClientRect: box }) => box.bottom > 0 && box.top < innerHeight;
  Bokeh.set_log_level("error");
  const seen = new IntersectionObserver((entries) => {
    const near = entries.filter((entry) => entry.isIntersecting);
    const idle = awaited.length === 0;
    for (const entry of [...near.filter(onScreen), ...near.filter((it) => !onScreen(it))]) {
      seen.unobserve(entry.target);
      awaited.push(entry.target);
    }
    if (idle) drawAwaited();
  }, { rootMargin: "250px" });
  applyTheme();
  dark.addEventListener("change", () => applyTheme());
  for (const card of document.querySelectorAll(".card")) {
    seen.observe(card);
    card.querySelector(".widen").addEventListener("click", () => {
      const wide = card.classList.toggle("wide");
      const chart = charts.find((it) => it.card === card);
      if (chart) chart.figure.height = wide ? 430 : 230;
      card.scrollIntoView({ block: "nearest" });
    });
    if (card.dataset.kind === "curves") card.addEventListener("dblclick", () => show(null));
  }

  // Controls -------------------------------------------------------------------------------------
  document.getElementById("theme").addEventListener("click", () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    remember("theme", next);
    applyTheme(next);
  });
  document.querySelectorAll("[data-range]").forEach((button) => button.addEventListener("click", () => {
    const part = Number(button.dataset.range);
    show(part === 1 ? null : [last - (last - first) * part, last]);
    document.querySelectorAll("[data-range]").forEach((it) => it.classList.toggle("on", it === button));
  }));
  const slider = document.getElementById("smoothing");
  if (slider) {
    const set = (value) => {
      smoothing = Number(value);
      slider.value = value;
      slider.labels[0].querySelector("output").textContent = value;
      charts.forEach((chart) => { chart.curves.forEach((curve) => curve.smooth()); paint(chart); });
    };
    slider.addEventListener("input", () => { set(slider.value); remember("smoothing", slider.value); });
    // The noise of many points hides what they do.
    const crowded = curves.some((curve) => curve.x.length > 300);
    set(recall("smoothing") ?? (crowded ? "0.9" : "0"));
  }
})();
