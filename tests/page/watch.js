// Before the page's own modules: remembers what the page showed, since a test may look too late.

window.shown = new Set(); // texts of the status
window.loudest = { microphone: 0, loudspeaker: 0 }; // of each meter

new MutationObserver(() => {
  shown.add(document.getElementById("status")?.textContent);
  for (const name in loudest) loudest[name] = Math.max(loudest[name], document.getElementById(name)?.value ?? 0);
}).observe(document, { subtree: true, childList: true, characterData: true, attributeFilter: ["value"] });
