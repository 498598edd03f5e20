// The page's theme, remembered in this browser, and the equity line.
(() => {
  const KEY = "mt5-console-theme";
  const CHOICES = ["auto", "light", "dark"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const lines = new Map();

  const remembered = () => {
    const choice = localStorage.getItem(KEY);
    return CHOICES.includes(choice) ? choice : "auto";
  };

  const applyTheme = () => {
    const choice = remembered();
    const dark = choice === "dark" || (choice === "auto" && system.matches);
    root.dataset.theme = dark ? "dark" : "light";
    for (const button of document.querySelectorAll("[data-theme-choice]"))
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    for (const id of lines.keys()) paint(id);
  };

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const chartOf = (id) => globalThis.getElement?.(id)?.chart;

  const line = (id) => {
    if (!lines.has(id)) lines.set(id, { points: [], digits: 2, waiting: false });
    return lines.get(id);
  };

  const whenDrawn = (id, draw) => {
    const chart = chartOf(id);
    if (chart) return draw(chart);
    // The chart mounts after the page; whatever came meanwhile is drawn at once.
    if (line(id).waiting) return;
    line(id).waiting = true;
    setTimeout(() => {
      line(id).waiting = false;
      paint(id);
    }, 50);
  };

  const amount = (id, value) =>
    Number(value).toLocaleString("en-US", {
      minimumFractionDigits: line(id).digits,
      maximumFractionDigits: line(id).digits,
    });

  const paint = (id) =>
    whenDrawn(id, (chart) => {
      const axis = {
        axisLabel: { color: colour("muted"), fontFamily: "inherit" },
        axisLine: { lineStyle: { color: colour("line") } },
        splitLine: { lineStyle: { color: colour("line") } },
      };
      chart.setOption({
        textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
        tooltip: {
          backgroundColor: colour("panel"),
          borderColor: colour("line"),
          textStyle: { color: colour("text") },
          valueFormatter: (value) => amount(id, value),
        },
        xAxis: { ...axis, splitLine: { show: false } },
        yAxis: { ...axis, axisLabel: { ...axis.axisLabel, formatter: (value) => amount(id, value) } },
        series: [{ id: "equity", itemStyle: { color: colour("accent") } }],
      });
      draw(id);
    });

  const draw = (id) =>
    whenDrawn(id, (chart) => {
      const { points } = line(id);
      chart.setOption({ series: [{ id: "equity", data: points }] }, { lazyUpdate: true });
      chart.getDom().dataset.points = String(points.length);
    });

  globalThis.mt5Console = {
    theme(choice) {
      localStorage.setItem(KEY, choice);
      applyTheme();
    },
    ready: applyTheme,
    equity: {
      append(id, fresh, most) {
        const { points } = line(id);
        points.push(...fresh);
        points.splice(0, Math.max(points.length - most, 0));
        draw(id);
      },
      clear(id, digits) {
        lines.delete(id);
        line(id).digits = digits;
        paint(id);
      },
    },
  };

  system.addEventListener("change", applyTheme);
  applyTheme();
})();
