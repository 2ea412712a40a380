// Charts draw themselves from the tables under them, and again whenever a table changes. One theme for light and dark.
"use strict";

(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--color-${name}`).trim();
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });

  const unsigned = (text) => text.replace(/^-(?=[0.]+$)/, ""); // zeros have no sign

  const theme = () => ({
    animation: false,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11, color: colour("quiet") },
    aria: { enabled: true },
    grid: { left: 8, right: 8, top: 36, bottom: 8, containLabel: true },
    // Rich text, because an HTML tooltip needs inline styles that the content security policy forbids.
    tooltip: {
      trigger: "axis",
      renderMode: "richText",
      confine: true,
      backgroundColor: colour("card"),
      borderColor: colour("edge"),
      textStyle: { color: colour("ink"), fontSize: 12 },
      axisPointer: { lineStyle: { color: colour("edge"), type: "solid" } },
    },
  });

  const axis = (values) => ({
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: colour("quiet"), hideOverlap: true, ...(values.type === "value" && { formatter: (value) => number.format(value) }) },
    splitLine: { lineStyle: { color: colour("line") } },
    nameTextStyle: { color: colour("quiet"), fontSize: 11 },
    ...values,
  });

  // Lengths of line and gap in turn; a legend shows the whole pattern.
  const DASHES = { solid: [], dashed: [8, 4], dotted: [2, 3], long: [14, 4], "dash-dot": [8, 3, 2, 3], "dash-dot-dot": [8, 3, 2, 3, 2, 3] };
  const SAMPLE_WIDTH = 26;

  // A piece of the line as the picture of its name: ECharts draws a line in a legend solid.
  const sample = (dash) => {
    const pattern = DASHES[dash]?.length ? DASHES[dash] : [SAMPLE_WIDTH];
    let path = "";
    for (let x = 0, place = 0; x < SAMPLE_WIDTH; x += pattern[place % pattern.length], place += 1) {
      const width = Math.min(pattern[place % pattern.length], SAMPLE_WIDTH - x);
      if (place % 2 === 0) path += `M${x} 0h${width}v2h${-width}z`;
    }
    return `path://${path}`;
  };

  const COLOURS = { good: "good", second: "second", doubt: "doubt", quiet: "quiet", ink: "ink", edge: "edge" };

  // The table as columns: one for x, and one for each series with its name, colour and axis.
  const read = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const column = (index) => [...table.tBodies[0].rows].map((row) => row.cells[index].dataset.value);
    const series = heads
      .map((head, index) => ({ head, index }))
      .filter(({ head }) => head.dataset.series)
      .map(({ head, index }) => ({
        name: head.textContent.trim(),
        colour: colour(COLOURS[head.dataset.series]),
        right: head.dataset.axis === "right",
        dash: head.dataset.dash ?? null,
        panel: head.dataset.panel ?? "",
        decimals: Number(head.dataset.decimals ?? 4),
        values: column(index).map((text) => (text === "" || text === undefined ? null : Number(text))),
      }));
    return { x: column(heads.findIndex((head) => "x" in head.dataset)), xName: heads.find((head) => "x" in head.dataset).textContent.trim(), series };
  };

  // Of so many names beside each other, by the width of the picture.
  const legendLines = (figure, series) => {
    const width = figure.querySelector(".chart").clientWidth || 320;
    let count = 1;
    let used = 0;
    for (const { name } of series) {
      const needs = SAMPLE_WIDTH + 20 + 6.5 * name.length;
      if (used + needs > width && used) {
        count += 1;
        used = 0;
      }
      used += needs;
    }
    return count;
  };

  const lines = (figure, table) => {
    const { x, xName, series } = read(table);
    const places = Number(figure.dataset.decimals ?? 4);
    const two = series.some((one) => one.right);
    const many = !two && series.length > 1; // which a legend tells apart
    const side = (right) => series.filter((one) => one.right === right);
    const limits = (right) => (side(right).every((one) => one.name === "Accuracy") ? { min: 0, max: 1, interval: 0.25 } : { min: side(right).some((one) => one.values.some((value) => value < 0)) ? null : 0 });
    const yAxis = (right) =>
      axis({
        type: "value",
        position: right ? "right" : "left",
        name: two ? side(right).map((one) => one.name.toLowerCase()).join(", ") : "",
        nameTextStyle: { color: side(right)[0]?.colour, fontSize: 11, align: right ? "right" : "left" },
        splitLine: { show: !right, lineStyle: { color: colour("line") } },
        splitNumber: 4,
        ...limits(right),
        ...(figure.dataset.yMax && { max: Number(figure.dataset.yMax), interval: Number(figure.dataset.yMax) / 4 }),
      });
    return {
      grid: { top: many ? 14 + 18 * legendLines(figure, series) : two ? 36 : 12, right: many ? 16 : 8 },
      ...(many && { legend: { top: 0, left: 0, itemGap: 10, itemWidth: SAMPLE_WIDTH, itemHeight: 8, data: series.map(({ name, dash }) => ({ name, icon: sample(dash) })), textStyle: { color: colour("quiet"), fontSize: 11 }, selectedMode: false } }),
      xAxis: axis({ type: "value", min: 0, max: Number(figure.dataset.xMax) || "dataMax", minInterval: 1, splitLine: { show: false }, axisPointer: { label: { show: false } } }),
      yAxis: two ? [yAxis(false), yAxis(true)] : [yAxis(false)],
      tooltip: { formatter: (points) => [`${xName} ${number.format(points[0].value[0])}`, ...points.map((point) => `${point.seriesName}  ${unsigned(point.value[1].toFixed(places))}`)].join("\n") },
      series: series.map((one) => {
        const points = x.map((place, index) => [Number(place), one.values[index]]).filter((point) => point[1] !== null);
        return {
          type: "line",
          name: one.name,
          yAxisIndex: one.right ? 1 : 0,
          data: points.map((value, index) => ({ value, symbolSize: index === points.length - 1 && !many ? 9 : 0.1 })),
          symbol: many ? "none" : "circle",
          showAllSymbol: true,
          lineStyle: { width: 2, color: one.colour, type: DASHES[one.dash]?.length ? DASHES[one.dash] : one.right ? [6, 3] : "solid" },
          itemStyle: { color: one.colour },
          emphasis: { disabled: true },
        };
      }),
    };
  };

  const PANEL = { height: 72, gap: 34, left: 52, right: 16 };

  // Panels above each other over the same rounds, one for each name that columns have.
  const timeline = (figure, table) => {
    const { x, xName, series } = read(table);
    const panels = [...new Set(series.map((one) => one.panel))];
    const top = 26 + 18 * legendLines(figure, series);
    figure.querySelector(".chart").style.height = `${top + panels.length * (PANEL.height + PANEL.gap)}px`;
    const limits = (panel) => (panel === "scores" ? { min: 0, max: 1, interval: 0.5 } : { min: series.some((one) => one.panel === panel && one.values.some((value) => value < 0)) ? null : 0, splitNumber: 2 });
    const last = panels.length - 1;
    return {
      legend: { top: 0, left: 0, itemGap: 10, itemWidth: SAMPLE_WIDTH, itemHeight: 8, data: series.map(({ name, dash }) => ({ name, icon: sample(dash) })), textStyle: { color: colour("quiet"), fontSize: 11 }, selectedMode: false },
      grid: panels.map((_, place) => ({ left: PANEL.left, right: PANEL.right, top: top + place * (PANEL.height + PANEL.gap), height: PANEL.height })),
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      xAxis: panels.map((_, place) => axis({ type: "value", gridIndex: place, min: 0, max: Number(figure.dataset.xMax) || "dataMax", minInterval: 1, splitLine: { show: false }, axisPointer: { label: { show: false } }, axisLabel: { show: place === last, color: colour("quiet"), hideOverlap: true } })),
      yAxis: panels.map((panel, place) => axis({ type: "value", gridIndex: place, name: panel, nameGap: 8, nameTextStyle: { color: colour("quiet"), fontSize: 11, align: "left" }, ...limits(panel) })),
      tooltip: { formatter: (points) => [`${xName} ${number.format(points[0].value[0])}`, ...points.map((point) => `${point.seriesName}  ${unsigned(point.value[1].toFixed(series[point.seriesIndex].decimals))}`)].join("\n") },
      series: series.map((one) => ({
        type: "line",
        name: one.name,
        xAxisIndex: panels.indexOf(one.panel),
        yAxisIndex: panels.indexOf(one.panel),
        data: x.map((round, index) => [Number(round), one.values[index]]).filter((point) => point[1] !== null),
        symbol: "circle",
        showAllSymbol: true,
        symbolSize: x.length > 60 ? 0.1 : 4,
        lineStyle: { width: 2, color: one.colour, type: DASHES[one.dash]?.length ? DASHES[one.dash] : "solid" },
        itemStyle: { color: one.colour },
        emphasis: { disabled: true },
      })),
    };
  };

  const histogram = (figure, table) => bars(read(table));

  const bars = ({ x, series }) => ({
    grid: { top: 16 },
    xAxis: axis({ type: "category", data: x, axisLine: { show: true, lineStyle: { color: colour("edge") } }, splitLine: { show: false }, name: "" }),
    yAxis: axis({ type: "value", minInterval: 1, splitNumber: 3 }),
    tooltip: {
      axisPointer: { type: "none" },
      formatter: ([bar]) => `from ${bar.name} tokens: ${number.format(bar.value)} ${bar.value === 1 ? "client" : "clients"}`,
    },
    series: series.map((one) => ({ type: "bar", name: one.name, data: one.values, barCategoryGap: "12%", itemStyle: { color: one.colour, borderRadius: [2, 2, 0, 0] }, emphasis: { disabled: true } })),
  });

  // From whom to whom: rows of giver, taker and tokens. Amber is burned, grey is kept, blue is at stake.
  const flow = (figure, table) => {
    const ways = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.dataset.value));
    const shades = { Burned: "doubt", Kept: "quiet", Mint: "ink", Treasury: "ink", Stakes: "second", "Still at stake": "second" };
    const names = [...new Set(ways.flatMap(([giver, taker]) => [giver, taker]))];
    return {
      xAxis: { show: false },
      yAxis: { show: false },
      tooltip: { trigger: "item", formatter: ({ dataType, name, data, value }) => (dataType === "edge" ? `${data.source} to ${data.target.toLowerCase()}` : name) + `  ${number.format(value)} tokens` },
      series: [
        {
          type: "sankey",
          left: 4,
          right: 84,
          top: 8,
          bottom: 8,
          nodeWidth: 10,
          nodeGap: 13, // a line of text
          draggable: false,
          layoutIterations: 0,
          emphasis: { disabled: true },
          label: { color: colour("ink"), fontSize: 11 },
          lineStyle: { color: colour("good"), opacity: 0.22, curveness: 0.5 },
          data: names.map((name) => ({ name, itemStyle: { color: colour(shades[name] ?? "good"), borderWidth: 0 } })),
          links: ways.map(([source, target, value]) => ({ source, target, value: Number(value), ...(shades[target] && target !== "Treasury" && { lineStyle: { color: colour(shades[target]) } }) })),
        },
      ],
    };
  };

  const KINDS = { lines, timeline, histogram, flow };

  const merged = (base, own) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(own)) {
      const both = value && result[key] && typeof value === "object" && !Array.isArray(value);
      result[key] = both ? merged(result[key], value) : value;
    }
    return result;
  };

  const draw = (figure) => {
    const table = figure.querySelector("table");
    const label = { aria: { label: { description: `${figure.dataset.name}. The values are in the table below.` } } };
    figure.chart.setOption(merged(merged(theme(), label), KINDS[figure.dataset.chart](figure, table)), { notMerge: true });
  };

  const drawings = new Map(); // figure -> what ends its watching

  const begin = (figure) => {
    const box = figure.querySelector(".chart");
    figure.classList.add("has-chart");
    figure.chart = echarts.init(box, null, { renderer: "svg" });
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (figure.isConnected) draw(figure);
      });
    };
    const changes = new MutationObserver(later);
    changes.observe(figure.querySelector("table"), { childList: true, subtree: true, characterData: true });
    const size = new ResizeObserver(() => {
      figure.chart.resize();
      later();
    });
    size.observe(box);
    drawings.set(figure, () => {
      changes.disconnect();
      size.disconnect();
      figure.chart.dispose();
    });
    draw(figure);
  };

  const refresh = () => {
    for (const [figure, end] of drawings) {
      if (figure.isConnected) continue;
      end();
      drawings.delete(figure);
    }
    for (const figure of document.querySelectorAll("figure[data-chart]")) if (!drawings.has(figure)) begin(figure);
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawings.forEach((_, figure) => draw(figure)));
  document.addEventListener("htmx:afterSwap", refresh);
  document.addEventListener("htmx:oobAfterSwap", refresh);
  refresh();
})();
