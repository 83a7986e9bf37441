// SPDX-License-Identifier: Apache-2.0
// Light, dark, or as the system has it; what was chosen is kept.

const THEMES = ["", "light", "dark"];
const KEPT = "clip_seg_ros theme";

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Makes a button go through the themes. */
export function keepTheme(button) {
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "";
    setTheme(button, THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  });
  try {
    setTheme(button, localStorage.getItem(KEPT) ?? "");
  } catch {
    setTheme(button, "");
  }
}

function setTheme(button, theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  button.textContent = `Theme: ${theme || "auto"}`;
  try {
    localStorage.setItem(KEPT, theme);
  } catch {
    // A private window keeps nothing.
  }
}
