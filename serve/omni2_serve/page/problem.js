// What went wrong, in a sentence for the person at the page.
export class Problem extends Error {}
