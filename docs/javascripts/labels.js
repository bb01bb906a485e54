// The theme puts a navigation landmark without a name on every code block: give each one its own name.
const label = () =>
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav) => {
    const number = [...document.querySelectorAll("pre")].indexOf(nav.closest("pre")) + 1;
    nav.setAttribute("aria-label", `Code block ${number}`);
  });
new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
label();
