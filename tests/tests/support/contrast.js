// Returns the texts that are not opaque, or whose contrast to their background is below 4.5:1, the minimum of WCAG 2.2 (1.4.3).
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (color) => {
  const [r, g, b] = channels(color).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if ((channels(color)[3] ?? 1) > 0) return color;
  }
  return "rgb(255, 255, 255)";
};
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const text = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data.trim()).join("");
  if (!text || !element.checkVisibility() || element.closest("noscript, datalist")) continue;
  const style = getComputedStyle(element);
  for (let at = element; at; at = at.parentElement) {
    if (getComputedStyle(at).opacity !== "1") faint.push(`${text}: not opaque`);
  }
  const color = element instanceof SVGElement ? style.fill : style.color;
  const [light, dark] = [color, background(element)].map(luminance).sort((one, other) => other - one);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < 4.5) faint.push(`${text}: ${contrast.toFixed(2)}`);
}
return faint;
