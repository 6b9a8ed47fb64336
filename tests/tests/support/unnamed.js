// Returns the controls, pictures and regions without a name for screen readers.
const names = (element) => {
  const labelled = (element.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
  return [
    element.getAttribute("aria-label"),
    ...labelled.map((id) => document.getElementById(id)?.textContent),
    ...[...(element.labels ?? [])].map((label) => label.textContent),
    element.matches("button, a") ? element.textContent : "",
  ];
};
const unnamed = [...document.querySelectorAll("input, select, button, a, nav, section, [role=img], [role=region], [tabindex='0']")];
return unnamed.filter((element) => !names(element).some((name) => name?.trim())).map((element) => element.outerHTML.slice(0, 80));
