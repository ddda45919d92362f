//! Speed of a guest whose code is twice what the code cache holds, against one with a cache that holds all of it.
//!
//! `footprint [MIB [ROW]]`: the size of the cache, and which row alone. The guest has many functions alike; they are called in turn, or some far more often
//! than others (the n-th of them as often as one in n), and each runs its body once, ten or a hundred times. No board, no paging.

#[cfg(all(target_arch = "x86_64", not(portable)))]
mod measure;

#[cfg(all(target_arch = "x86_64", not(portable)))]
use measure::main;

#[cfg(not(all(target_arch = "x86_64", not(portable))))]
fn main() {
    println!("footprint: there is no emitted code on this host");
}
