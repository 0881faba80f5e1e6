//! cat FILE, write FILE TEXT, args, env, upper, exit CODE, panic, overflow: a plain Rust program,
//! compiled for preview 1 and made a component with the adapter.
use std::io::{Read, Write};
use std::{env, fs, io, process};

fn overflow(depth: u64) -> u64 {
    let frame = [depth; 64];
    frame[(depth % 64) as usize] + if depth == u64::MAX { 0 } else { overflow(depth + 1) }
}

fn run(args: &[String]) -> io::Result<()> {
    let rest = &args[2..];
    match args[1].as_str() {
        "cat" => print!("{}", fs::read_to_string(&rest[0])?),
        "write" => fs::write(&rest[0], &rest[1])?,
        "args" => println!("{:?}", rest),
        "env" => println!("{:?}", env::vars().collect::<Vec<_>>()),
        "upper" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            io::stdout().write_all(text.to_uppercase().as_bytes())?;
        }
        "exit" => process::exit(rest[0].parse().unwrap()),
        "panic" => panic!("on purpose"),
        "overflow" => println!("{}", overflow(0)),
        other => panic!("no command {}", other),
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let Err(error) = run(&args) {
        eprintln!("{}", error);
        process::exit(1);
    }
}
