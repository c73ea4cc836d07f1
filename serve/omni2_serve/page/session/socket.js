// A connection to the server's Realtime interface.

import { Problem } from "../problem.js";

const ENDS = {
  1001: "The server is stopping. Start again in a moment.",
  1013: "The server is full. Try again in a moment.",
};

// Browsers do not tell a page why a connection was refused.
const REFUSED = "The server let no conversation begin. It may be full, or stopping: try again in a moment.";

export class Socket {
  /**
   * `key` may be empty. `onEvent(event)` gets every event; `onClosed(problem)` a Problem, or null where we closed it.
   * Throws a Problem if no session comes about.
   */
  static async open(model, key, onEvent, onClosed) {
    const url = new URL("/v1/realtime", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("model", model);
    const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];
    const socket = new WebSocket(url, protocols);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = ({ code }) => reject(new Problem(ENDS[code] ?? REFUSED));
    });
    return new Socket(socket, onEvent, onClosed);
  }

  constructor(socket, onEvent, onClosed) {
    this.socket = socket;
    this.closed = false;
    socket.onmessage = ({ data }) => onEvent(JSON.parse(data));
    socket.onclose = ({ code, reason }) => {
      const problem = new Problem(ENDS[code] ?? (reason || "The connection to the server was lost. Start again."));
      onClosed(this.closed ? null : problem);
    };
  }

  send(type, fields = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  close() {
    this.closed = true;
    this.socket.close(1000);
  }
}
