// Returns what a reader of the open page would see as broken, as strings.

const found = [];

// --- nothing is wider than the window ---------------------------------------

const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) {
  const wide = [...document.querySelectorAll("body *")].find(
    (element) => element.getBoundingClientRect().right > width + 1
      && !scrolls(element.parentElement)
  );
  found.push(`the page is ${document.documentElement.scrollWidth} px wide ` +
    `in a window of ${width} px: ${describe(wide)}`);
}

// Whether an element or one around it has a scroll bar of its own.
function scrolls(element) {
  for (; element && element !== document.body; element = element.parentElement) {
    if (getComputedStyle(element).overflowX !== "visible") return true;
  }
  return false;
}

// --- no column of a table is out of sight -----------------------------------

for (const table of document.querySelectorAll("article table.docutils")) {
  const room = table.parentElement.clientWidth;
  if (room && table.scrollWidth > room + 1) {
    found.push(`a table of ${table.scrollWidth} px in ${room} px: ` +
      describe(table));
  }
}

// --- a pane of code shows 40 columns ----------------------------------------

const ruler = document.createElement("span");
ruler.textContent = "0".repeat(100);
ruler.style.visibility = "hidden";
for (const pane of document.querySelectorAll("div.highlight pre")) {
  if (!pane.checkVisibility()) continue;
  pane.append(ruler);
  const column = ruler.getBoundingClientRect().width / 100;
  ruler.remove();
  const style = getComputedStyle(pane);
  const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  const columns = Math.floor((pane.clientWidth - padding) / column);
  if (columns < 40) {
    found.push(`a pane shows ${columns} columns: ${describe(pane)}`);
  }
}

// --- text stands out from its background ------------------------------------

// Colors are drawn to read them, because a style may name them in any space.
const context = Object.assign(document.createElement("canvas"), {
  width: 1, height: 1,
}).getContext("2d", { willReadFrequently: true });
const colors = new Map();

function rgba(color) {
  if (!colors.has(color)) {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    colors.set(color, [r, g, b, a / 255]);
  }
  return colors.get(color);
}

function over(top, bottom) {
  return [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3]));
}

function background(element) {
  const layers = [];
  for (; element; element = element.parentElement) {
    const color = rgba(getComputedStyle(element).backgroundColor);
    layers.push(color);
    if (color[3] === 1) break;
  }
  return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255]);
}

// https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
function luminance(color) {
  const [r, g, b] = color.map((x) => {
    const c = x / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const seen = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility({
    opacityProperty: true, visibilityProperty: true,
  })) continue;
  if (element.closest("svg, script, style, noscript, .visually-hidden")) continue;
  const style = getComputedStyle(element);
  const behind = background(element);
  const text = over(rgba(style.color), behind);
  const [dark, light] = [luminance(text), luminance(behind)].sort((a, b) => a - b);
  const ratio = (light + 0.05) / (dark + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const key = `${style.color} on ${behind}`;
  if (ratio < (large ? 3 : 4.5) && !seen.has(key)) {
    seen.add(key);
    found.push(`a contrast of ${ratio.toFixed(2)}: ${describe(element)}`);
  }
}

function describe(element) {
  if (!element) return "";
  const classes = [...element.classList].map((name) => `.${name}`).join("");
  const text = element.textContent.trim().slice(0, 40).replaceAll("\n", " ");
  return `<${element.localName}${classes}> ${JSON.stringify(text)}`;
}

return found;
