"use strict";

// Theme: follows the system until the button is pressed, then light and dark in turn.
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemDark.matches;
}
function nameTheme() {
  themeButton.textContent = isDark() ? "Light theme" : "Dark theme";
}
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
themeButton.hidden = false;
nameTheme();

// Tooltips: the words of a mark, on pointer and on keyboard focus; Escape puts them away.
const tip = document.getElementById("tip");
function showTip(mark) {
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  const box = mark.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, Math.min(left, room)) + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
}
for (const mark of document.querySelectorAll("[data-tip]")) {
  for (const event of ["pointerenter", "focus"]) mark.addEventListener(event, () => showTip(mark));
  for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, () => { tip.hidden = true; });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// The hint above what scrolls sideways, only where it does.
const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth;
});
for (const group of document.querySelectorAll(".scroll")) watch.observe(group);

// A choice shows one of the panels that belong to it.
for (const choice of document.querySelectorAll("select[data-panels]")) {
  const panels = document.querySelectorAll(`[data-panel="${choice.dataset.panels}"]`);
  const show = () => { for (const panel of panels) panel.hidden = panel.id !== choice.value; };
  choice.addEventListener("change", show);
  choice.closest("p").hidden = false;
  show();
}
