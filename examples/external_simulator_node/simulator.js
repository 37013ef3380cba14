// A simulator in JavaScript that owns its loop, a pole on a cart: it asks a training for actions.
//
//     npm ci                                                          # in this folder, once; it needs Node 20
//     shoal train ppo CartPole-v1 --listen 127.0.0.1:50051            # in one terminal; it tells a token
//     SHOAL_SIMULATOR_TOKEN=… node simulator.js 127.0.0.1:50051       # in others; further arguments: seed, carts at once
"use strict";

const { SimulatorClient, status } = require("./client.js");

const SPACES = {
  observation: { type: "Box", shape: [4], dtype: "float32" },
  action: { type: "Discrete", n: 2 },
};

// Numbers in [0, 1) that follow from a seed (mulberry32).
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

// Barto, Sutton and Anderson's cart with a pole: 1 for each step that it stands, 500 at most.
class Pole {
  constructor(next) {
    this.state = Array.from({ length: 4 }, () => (next() - 0.5) / 10);
    this.steps = 0;
  }

  push(action) {
    const [x, v, angle, turning] = this.state;
    const shared = ((action === 1 ? 10 : -10) + 0.05 * turning ** 2 * Math.sin(angle)) / 1.1;
    const bending =
      (9.8 * Math.sin(angle) - Math.cos(angle) * shared) / (2 / 3 - (0.05 * Math.cos(angle) ** 2) / 1.1);
    const speeding = shared - (0.05 * bending * Math.cos(angle)) / 1.1;
    this.state = [x + 0.02 * v, v + 0.02 * speeding, angle + 0.02 * turning, turning + 0.02 * bending];
    this.steps += 1;
    this.fell = Math.abs(this.state[0]) > 2.4 || Math.abs(this.state[2]) > (12 * Math.PI) / 180;
    return 1;
  }
}

async function simulate(client, next) {
  for (;;) {
    try {
      const episode = await client.start();
      const pole = new Pole(next);
      let reward = 0;
      while (!pole.fell && pole.steps < 500) {
        reward = pole.push(await episode.act(pole.state, reward));
      }
      await episode.end(pole.state, reward, pole.fell ? "TERMINATED" : "TRUNCATED");
    } catch (error) {
      const lost = [status.NOT_FOUND, status.UNAVAILABLE];
      if (!lost.includes(error.code)) throw error; // an episode that was lost: another one begins
    }
  }
}

async function main([address = "127.0.0.1:50051", seed = "0", carts = "1"]) {
  const client = new SimulatorClient(address, { token: process.env.SHOAL_SIMULATOR_TOKEN, spaces: SPACES });
  try {
    await Promise.all(Array.from({ length: Number(carts) }, (_, cart) => simulate(client, random(Number(seed) + cart))));
  } catch (error) {
    console.log(`the simulator ends: ${error.details ?? error.message}`);
    process.exitCode = [status.ABORTED, status.CANCELLED].includes(error.code) ? 0 : 1;
  } finally {
    client.close();
  }
}

main(process.argv.slice(2));
