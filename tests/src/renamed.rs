//! kAFS beside OpenAFS. Both call their file system `afs`, and the kernel takes each name once (Linux,
//! fs/filesystems.c, register_filesystem), so it refuses the second. AuriStorFS and kAFS work together, but we
//! cannot test AuriStorFS. So Debian's kAFS gets another name here, by one number in its file. Nothing else of it
//! changes.

/// The new name of its file system: the pointer to `afs` points one letter further.
pub const NAME: &str = "fs";

/// The mark at the end of a signed module. Without it the module counts as unsigned, and the kernel loads it if it
/// does not demand signatures.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A section of the file. The names are those of its header's fields.
struct Section {
    kind: usize,
    offset: usize,
    size: usize,
    link: usize,
    info: usize,
}

/// Kinds of sections, of the ELF specification.
const SYMBOLS: usize = 2;
const RELOCATIONS: usize = 4;

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Renames the file system in a module of 64 bits, little-endian.
///
/// # Panics
/// If it is no module of kAFS.
pub fn rename(module: &mut Vec<u8>) {
    if module.ends_with(SIGNED) {
        module.truncate(module.len() - SIGNED.len());
    }
    let (table, count) = (number(module, 0x28, 8), number(module, 0x3c, 2));
    let section = |index: usize| {
        let at = table + 64 * index;
        let field = |place: usize, length: usize| number(module, at + place, length);
        Section { kind: field(4, 4), offset: field(24, 8), size: field(32, 8), link: field(40, 4), info: field(44, 4) }
    };
    let sections: Vec<Section> = (0..count).map(section).collect();
    let entries = |section: &Section| (section.offset..section.offset + section.size).step_by(24);
    let symbols = sections.iter().find(|one| one.kind == SYMBOLS).expect("a module with symbols");
    let names = sections[symbols.link].offset;
    let is_named = |at: &usize| module[names + number(module, *at, 4)..].starts_with(b"afs_fs_type\0");
    let symbol = entries(symbols).find(is_named).expect("kAFS's description of its file system");
    let (place, within) = (number(module, symbol + 8, 8), number(module, symbol + 6, 2));
    // The name comes first in it.
    let of_name = |at: &usize| number(module, *at, 8) == place;
    let mut relocations = sections.iter().filter(|one| one.kind == RELOCATIONS && one.info == within);
    let name = relocations.find_map(|section| entries(section).find(of_name)).expect("a pointer to its name");
    let addend = number(module, name + 16, 8) + 1;
    module[name + 16..name + 24].copy_from_slice(&addend.to_le_bytes());
}
