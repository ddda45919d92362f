//! Speed of making code: lifts and emits the blocks of a program, its own, in millions of guest instructions a second.
//!
//! `emission [ROUNDS [FILE]]`; FILE is another ELF program. Nothing of it runs: what is counted is lifting and emitting alone, with
//! warm caches. A count of host instructions (`valgrind --tool=callgrind`) is exact where time is not.

#[cfg(all(target_arch = "x86_64", not(portable)))]
mod measure;

#[cfg(all(target_arch = "x86_64", not(portable)))]
use measure::main;

#[cfg(not(all(target_arch = "x86_64", not(portable))))]
fn main() {
    println!("emission: there is no emitted code on this host");
}
