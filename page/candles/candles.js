// Draws what page/chart.py sends. A new bar goes into the series that are there: whoever has moved or zoomed the chart keeps their view.

const KINDS = {
  Candlestick: LightweightCharts.CandlestickSeries,
  Histogram: LightweightCharts.HistogramSeries,
  Line: LightweightCharts.LineSeries,
};
const legend = document.getElementById("legend");
const box = document.getElementById("chart");
let chart = null;
let lines = []; // {name, color, series, points: time -> its point as JSON}

function open({ options, panes, shown }) {
  box.style.height = `${panes.reduce((sum, pane) => sum + pane.height, 0)}px`;
  chart = LightweightCharts.createChart(box, { autoSize: true, ...options });
  panes.forEach((pane, number) => {
    for (const { type, name, options, levels } of pane.series) {
      const series = chart.addSeries(KINDS[type], options, number);
      levels.forEach((level) => series.createPriceLine(level));
      lines.push({ name, color: options.color, series, points: new Map() });
    }
  });
  chart.panes().forEach((pane, number) => pane.setStretchFactor(panes[number].height));
  chart.subscribeCrosshairMove(({ time, seriesData }) => describe(time === undefined ? null : seriesData));
  fill(panes);
  const bars = panes[0].series[0].data.length;
  chart.timeScale().setVisibleLogicalRange({ from: Math.max(0, bars - shown) - 0.5, to: bars + 2 });
}

function fill(panes) {
  panes.flatMap((pane) => pane.series).forEach(({ data }, number) => {
    const { series, points } = lines[number];
    const last = series.data().at(-1)?.time;
    const changed = data.filter((point) => points.get(point.time) !== JSON.stringify(point));
    // A series takes a new point at its end and another value of a point that it has, but no new one in between.
    if (last === undefined || changed.some(({ time }) => time < last && !points.has(time))) series.setData(data);
    else changed.forEach((point) => series.update(point, point.time < last));
    changed.forEach((point) => points.set(point.time, JSON.stringify(point)));
  });
}

function dress({ backgroundColor, textColor }) {
  Object.assign(document.body.style, { background: backgroundColor, color: textColor });
  chart.applyOptions({ layout: { background: { type: "solid", color: backgroundColor }, textColor } });
}

// The bar under the crosshair in words, or the newest.
function describe(under) {
  legend.replaceChildren();
  const say = (text, color) => legend.append(Object.assign(document.createElement("span"), { textContent: text, style: `color:${color ?? ""}` }));
  for (const { name, color, series } of lines) {
    const point = under ? under.get(series) : series.data().at(-1);
    if (!point) continue;
    const show = (value) => series.priceFormatter().format(value);
    if (point.open === undefined) {
      say(`${name} ${show(point.value)}`, color);
    } else {
      const { open, high, low, close } = point;
      const { upColor, downColor } = series.options();
      say(name);
      say(`O ${show(open)} H ${show(high)} L ${show(low)} C ${show(close)}`, close >= open ? upColor : downColor);
    }
  }
}

function tell(type, more) {
  window.parent.postMessage({ isStreamlitMessage: true, type: `streamlit:${type}`, ...more }, "*");
}

window.addEventListener("message", ({ data }) => {
  if (data.type !== "streamlit:render") return;
  if (chart) fill(data.args.panes);
  else open(data.args);
  dress(data.theme);
  describe(null);
  tell("setFrameHeight", { height: document.documentElement.scrollHeight });
});
tell("componentReady", { apiVersion: 1 });
