//! What goes wrong before a transform is chosen. A test writes a name over the dots of [`MODE`] in the component's bytes.

use crate::*;
use crate::poison::{dig, hoard, spin};

/// `hostile-describe:` and a name; dots are none.
static MODE: [u8; 40] = *b"hostile-describe:.......................";

fn mode() -> String {
    // SAFETY: a reference to a static; volatile, so that the compiler does not take the bytes for known.
    let bytes = unsafe { std::ptr::read_volatile(&raw const MODE) };
    String::from_utf8_lossy(&bytes[17..]).trim_end_matches('.').to_string()
}

/// Spoils a descriptor, or does not come to its end.
pub fn spoil(mut descriptor: Descriptor) -> Descriptor {
    let second = descriptor.transforms[1].name.clone();
    let first = &mut descriptor.transforms[0];
    match mode().as_str() {
        "panics" => panic!("describe has no brakes"),
        "aborts" => std::process::abort(),
        "loops" => spin(),
        "hoards" => hoard(),
        "recurses" => drop(std::hint::black_box(dig(1))),
        "calls-host" => loop {
            log::write(log::Level::Info, "still here");
        },
        "not-json" => first.config_schema = "{".into(),
        "deep-json" => first.config_schema = "[".repeat(1 << 20),
        "no-transforms" => descriptor.transforms.clear(),
        "same-name" => first.name = second,
        "wrong-role" => first.role = Role::Combine,
        "huge-name" => first.name = "n".repeat(80 << 20),
        "many-transforms" => {
            let one = first.clone();
            descriptor.transforms = (0..400_000).map(|number| TransformSpec { name: number.to_string(), ..one.clone() }).collect();
        }
        _ => {}
    }
    descriptor
}
