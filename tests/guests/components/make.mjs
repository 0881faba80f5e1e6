// Makes components with the packages of jco, which is installed beside a copy of this file.
//
//   node make.mjs adapt CORE OUT              a preview 1 command, by jco's adapter
//   node make.mjs embed CORE OUT WORLD WIT    the same, with imports of a WIT world of its own
//   node make.mjs script SOURCE OUT WORLD WIT a JavaScript module
//
// WIT: a file with the package of the world.  The wasi packages are taken from jco: as text, since
// jco's own command line cannot read a folder of them everywhere.
import { readFile, readdir, writeFile } from "node:fs/promises";
import { componentEmbed, componentNew, preview1AdapterCommandPath } from "@bytecodealliance/jco";
import { componentize } from "@bytecodealliance/componentize-js";

const [command, source, out, world, wit] = process.argv.slice(2);
const jco = new URL("node_modules/@bytecodealliance/jco/", import.meta.url);
const packages = new URL("lib/wit/builtin/0.2.12/", jco);

async function allWit() {
  let text = await readFile(wit, "utf8");
  for (const folder of (await readdir(packages)).sort()) {
    const one = await readFile(new URL(`${folder}/package.wit`, packages), "utf8");
    text += one.replace(/^package ([^;]+);/m, "package $1 {") + "\n}\n";
  }
  return text;
}

async function adapted(core) {
  const adapter = await readFile(preview1AdapterCommandPath());
  return componentNew(core, [["wasi_snapshot_preview1", adapter]]);
}

let made;
if (command === "adapt") made = await adapted(await readFile(source));
else if (command === "embed") {
  const binary = await readFile(source);
  made = await adapted(await componentEmbed({ binary, world, witSource: await allWit() }));
} else if (command === "script") {
  const text = await readFile(source, "utf8");
  // What is not used is not imported: no incoming requests, no randomness.
  const disableFeatures = ["fetch-event", "random"];
  const options = { worldName: world, witWorld: await allWit(), disableFeatures };
  made = (await componentize(text, options)).component;
} else throw new Error(`no command ${command}`);
await writeFile(out, made);
