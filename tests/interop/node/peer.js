// A plain WebSocket peer on `ws`: JSON lines in are commands, JSON lines out are events (see ../conftest.py).
"use strict";

const readline = require("node:readline");
const WebSocket = require("ws");

let current = null; // the newest connection

function emit(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

function adopt(socket) {
  current = socket;
  socket.on("message", (data, isBinary) => {
    emit("message", { kind: isBinary ? "binary" : "text", text: data.toString("utf8") });
  });
  socket.on("pong", (data) => emit("pong", { text: data.toString("utf8") }));
  socket.on("close", (code, reason) => emit("closed", { code, reason: reason.toString("utf8") }));
  socket.on("error", (error) => emit("error", { text: String(error) }));
}

const commands = {
  listen() {
    const server = new WebSocket.Server({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
    server.on("connection", (socket) => {
      adopt(socket);
      emit("opened");
    });
    server.on("listening", () => emit("listening", { port: server.address().port }));
  },
  dial({ url }) {
    const socket = new WebSocket(url);
    adopt(socket);
    socket.on("open", () => emit("opened"));
  },
  send({ text, kind }) {
    current.send(text, { binary: kind === "binary" });
  },
  send_parts({ parts }) {
    parts.forEach((part, index) => {
      const fin = index === parts.length - 1;
      current.send(part, { binary: false, fin });
      if (!fin) current.ping("between");
    });
  },
  ping({ text }) {
    current.ping(text);
  },
  close({ code, reason }) {
    current.close(code, reason);
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  })
  .on("close", () => process.exit(0));
