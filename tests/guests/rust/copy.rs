//! copy FROM TO, as a Rust programmer writes it.

use std::{env, fs, process};

fn copy(from: &str, to: &str) -> Result<(), String> {
    let bytes = fs::read(from).map_err(|e| format!("error opening input {}: {}", from, e))?;
    fs::write(to, bytes).map_err(|e| format!("error opening output {}: {}", to, e))
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if args.len() != 3 {
        eprintln!("usage: {} FROM TO", args[0]);
        process::exit(2);
    }
    if let Err(message) = copy(&args[1], &args[2]) {
        eprintln!("{}", message);
        process::exit(1);
    }
}
