// A client of Shoal's protocol for simulators (envs/proto/shoal_simulators.proto), version 1.
//
//     const client = new SimulatorClient("127.0.0.1:50051", { token: process.env.SHOAL_SIMULATOR_TOKEN });
//     const episode = await client.start();
//     const action = await episode.act([0.0, 0.1, 0.02, -0.1]);        // then act(observation, reward), …
//     await episode.end(observation, reward, "TERMINATED");            // or "TRUNCATED": the episode was cut off
//
// Observations are numbers, arrays of numbers (in C order, nested or not: the space says the shape), or, of a Dict space,
// objects of them; a mask of actions is the part action_mask. Actions come back so, too, arrays flat. Errors are gRPC's,
// with code and details: after NOT_FOUND, or UNAVAILABLE (the connection broke), begin another episode; ABORTED and
// CANCELLED are the end.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTOCOL = 1;
const PROTO = path.join(__dirname, "..", "..", "envs", "proto", "shoal_simulators.proto");

function toValue(element) {
  if (element !== null && typeof element === "object" && !Array.isArray(element) && !ArrayBuffer.isView(element)) {
    const parts = Object.entries(element).map(([name, part]) => [name, toValue(part)]);
    return { parts: { parts: Object.fromEntries(parts) } };
  }
  const numbers = typeof element === "object" ? Array.from(element).flat(Infinity) : [element];
  return { array: { numbers: numbers.map(Number) } };
}

function fromValue(value) {
  if (value.parts) {
    return Object.fromEntries(Object.entries(value.parts.parts).map(([name, part]) => [name, fromValue(part)]));
  }
  if (value.items) return value.items.items.map(fromValue);
  const { shape, numbers } = value.array;
  return shape.length ? numbers : numbers[0];
}

class SimulatorClient {
  // `ca`: file of certificates of who may have signed the server's; without it there is no TLS.
  // `seconds`: how long a call may take; a training that learns does not answer meanwhile.
  constructor(address, { token, ca = process.env.SHOAL_SIMULATOR_TLS_CA, proto = PROTO, seconds = 300, spaces = {} } = {}) {
    const definition = protoLoader.loadSync(proto, { longs: Number, enums: String, defaults: true, oneofs: false });
    const { Simulators } = grpc.loadPackageDefinition(definition).shoal.simulators.v1;
    const { createInsecure, createSsl } = grpc.credentials;
    this.stub = new Simulators(address, ca ? createSsl(fs.readFileSync(ca)) : createInsecure(), {
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
    });
    this.metadata = new grpc.Metadata();
    this.metadata.set("authorization", `Bearer ${token}`);
    this.seconds = seconds;
    this.spaces = spaces;
  }

  call(method, request) {
    const deadline = Date.now() + 1000 * this.seconds;
    return new Promise((resolve, reject) => {
      this.stub[method](request, this.metadata, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
  }

  // Wait for a server, for so many seconds at most.
  ready(seconds = 30) {
    return new Promise((resolve, reject) => {
      this.stub.waitForReady(Date.now() + 1000 * seconds, (error) => (error ? reject(error) : resolve()));
    });
  }

  // Wait for a server, which may be restarted meanwhile, and begin an episode. `spaces` may have observation and action,
  // as envs/proto/shoal_simulators.proto describes: the server compares them.
  async start(seconds = 30) {
    const { observation, action } = this.spaces;
    const request = {
      protocol: PROTOCOL,
      observationSpace: observation ? JSON.stringify(observation) : "",
      actionSpace: action ? JSON.stringify(action) : "",
    };
    const until = Date.now() + 1000 * seconds;
    for (;;) {
      await this.ready((until - Date.now()) / 1000);
      try {
        return new Episode(this, (await this.call("Start", request)).session);
      } catch (error) {
        if (error.code !== grpc.status.UNAVAILABLE) throw error; // that server ended before it could answer
      }
    }
  }

  close() {
    this.stub.close();
  }
}

class Episode {
  constructor(client, session) {
    this.client = client;
    this.session = session;
    this.step = 0;
  }

  // Ask for an action; `reward` is what came of the one before.
  async act(observation, reward = 0) {
    const { action } = await this.send("Act", observation, reward);
    return fromValue(action);
  }

  // Tell of an action that the simulator chose itself.
  async log(observation, action, reward = 0) {
    await this.send("Log", observation, reward, { action: toValue(action) });
  }

  // End the episode: "TERMINATED" (the task ended), or "TRUNCATED" (it was cut off).
  async end(observation, reward, outcome) {
    await this.send("End", observation, reward, { outcome });
  }

  async send(method, observation, reward, more = {}) {
    const request = { session: this.session, step: this.step, reward, observation: toValue(observation), ...more };
    const reply = await this.client.call(method, request);
    this.step += 1;
    return reply;
  }
}

module.exports = { SimulatorClient, Episode, status: grpc.status };
