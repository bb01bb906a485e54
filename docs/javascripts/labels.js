// The theme puts a navigation landmark without a name on every code block: give each one its own name. A wide table scrolls by
// itself: let the keyboard reach it.
const label = () => {
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((wrap) => wrap.setAttribute("tabindex", "0"));
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav) => {
    const number = [...document.querySelectorAll("pre")].indexOf(nav.closest("pre")) + 1;
    nav.setAttribute("aria-label", `Code block ${number}`);
  });
};
new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
label();
