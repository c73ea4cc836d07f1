// What the demo's model was taught to answer.
export const QUESTIONS = [
  "What is seven plus five?",
  "What is eight plus six?",
  "Multiply six by seven.",
  "Please tell me twenty minus eight.",
  "What day comes after Tuesday?",
  "How many days does February have?",
  "It is three o'clock now. What time will it be in two hours?",
  "Count down from five to one.",
  "Please spell water.",
  "What is the capital of Germany?",
  "What is the capital of Scotland?",
  "What is your name?",
];
