// The theme binds only the first menu button and the first contents button of a page, and those stand in
// its header, which realign.css hides. The visible ones are bound here: they open the theme's dialog, and on
// a wide window, where the menu stands in the page, its button hides and shows it.
document.addEventListener("DOMContentLoaded", () => {
  const wide = matchMedia("(min-width: 992px)");
  for (const [side, label] of [["primary", "Site navigation"], ["secondary", "Contents of this page"]]) {
    const sidebar = document.getElementById(`pst-${side}-sidebar`);
    const [bound, ...shown] = document.querySelectorAll(`.${side}-toggle`);
    const inPage = () => side === "primary" && wide.matches;
    for (const button of shown) {
      if (!sidebar) {
        button.hidden = true; // a page without headings
        continue;
      }
      const tell = () =>
        button.setAttribute("aria-expanded", String(inPage() && !sidebar.classList.contains("collapsed")));
      button.setAttribute("aria-label", label);
      wide.addEventListener("change", tell);
      button.addEventListener("click", () => {
        if (inPage()) sidebar.classList.toggle("collapsed");
        else bound.click();
        tell();
      });
      tell();
    }
  }
});
