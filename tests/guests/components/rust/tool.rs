//! A plain Rust program, compiled for preview 1 and made a component with the adapter.
//!
//! cat FILE, write FILE TEXT, append FILE TEXT, list DIRECTORY, remove FILE, move OLD NEW, mkdir NAME,
//! args, env, upper, exit CODE, panic, overflow, grow MEBIBYTES, spin, sleep, chatter
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::{env, process, thread, time::Duration};

/// Where the adapter puts its state: without this export it takes a page of its own at the heap's
/// end, which the C library of this old target then takes for its own (it expects sbrk's results to
/// be contiguous).
#[no_mangle]
pub unsafe extern "C" fn cabi_realloc(old: *mut u8, had: usize, align: usize, size: usize) -> *mut u8 {
    use std::alloc::{alloc, realloc, Layout};
    if had == 0 {
        alloc(Layout::from_size_align_unchecked(size, align))
    } else {
        realloc(old, Layout::from_size_align_unchecked(had, align), size)
    }
}

fn overflow(depth: u64) -> u64 {
    let frame = [depth; 64];
    frame[(depth % 64) as usize] + if depth == u64::MAX { 0 } else { overflow(depth + 1) }
}

fn list(name: &str) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(name)? {
        names.push(entry?.file_name().into_string().unwrap());
    }
    names.sort();
    println!("{}", names.join(" "));
    Ok(())
}

/// Memory that is touched, a mebibyte at a time, as far as there is any.
fn grow(most: usize) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() < most {
        let mut part = Vec::new();
        if part.try_reserve_exact(1 << 20).is_err() {
            break;
        }
        part.resize(1 << 20, 1u8);
        held.push(part);
    }
    let count = held.len();
    drop(held); // printing needs some, too
    println!("{} MiB", count);
}

fn run(args: &[String]) -> io::Result<()> {
    let rest = &args[2..];
    match args[1].as_str() {
        "cat" => print!("{}", fs::read_to_string(&rest[0])?),
        "write" => fs::write(&rest[0], &rest[1])?,
        "append" => OpenOptions::new().append(true).open(&rest[0])?.write_all(rest[1].as_bytes())?,
        "list" => list(&rest[0])?,
        "remove" => fs::remove_file(&rest[0])?,
        "move" => fs::rename(&rest[0], &rest[1])?,
        "mkdir" => fs::create_dir(&rest[0])?,
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
        "grow" => grow(rest[0].parse().unwrap()),
        "spin" => loop {
            std::hint::spin_loop()
        },
        "sleep" => thread::sleep(Duration::from_secs(60)),
        "chatter" => loop {
            io::stdout().write_all(&[b'x'; 4096])?
        },
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
