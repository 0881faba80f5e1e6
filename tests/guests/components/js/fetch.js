// fetch URL...: the status and text of each, redirects followed by hand, since it is the program's
// requests that the tests count; args: what it was given; throw: an exception that nobody catches.
import { getArguments } from "wasi:cli/environment@0.2.12";

async function get(url) {
  try {
    let response = await fetch(url, { headers: { "user-agent": "guest" } });
    const next = response.headers.get("location");
    if (next) {
      console.log(`${response.status} ${next}`);
      response = await fetch(next);
    }
    console.log(`${response.status} ${await response.text()}`);
  } catch (error) {
    console.log(`error ${error}`);
  }
}

export const run = {
  async run() {
    const [, command, ...rest] = getArguments();
    if (command === "fetch") for (const url of rest) await get(url);
    else if (command === "args") console.log(JSON.stringify(rest));
    else throw new Error(`no command ${command}`);
  },
};
