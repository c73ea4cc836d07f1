// OpenAI's agents SDK against `omni2-engine serve`: a typed turn, and what was answered.
//
//   npm install @openai/agents-realtime
//   node examples/realtime_agents.mjs 127.0.0.1:8000 "What is seven plus five?"
//
// The demonstration model was taught no typed turns: start the server with --typed-turns.
import { RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

const [address, question] = process.argv.slice(2);
const agent = new RealtimeAgent({ name: "omni2", instructions: "Answer in one sentence." });
const session = new RealtimeSession(agent, { transport: "websocket", tracingDisabled: true });
session.on("error", ({ error }) => {
  console.error(error.error?.message ?? error);
  process.exit(1);
});
session.on("audio", ({ data }) => console.log(`${data.byteLength / 48} ms of sound`));
session.on("agent_end", (_context, _agent, text) => {
  console.log(text);
  session.close();
});
await session.connect({ apiKey: process.env.OMNI2_API_KEY ?? "none", url: `ws://${address}/v1/realtime` });
session.sendMessage(question);
