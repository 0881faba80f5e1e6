//! The classic one.

fn main() {
    println!("hello, world");
}
