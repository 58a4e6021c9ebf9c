//! Writes a boot image for `bootproof run`: what write_boot_image.c does, in Rust with nothing but
//! its standard library, to start from in a VMM of your own. Loads an x86_64 vmlinux for the 64-bit
//! Linux boot protocol.
//!
//!     rustc -O -o write_boot_image write_boot_image.rs
//!     bootproof initramfs proof.cpio && mkdir image
//!     ./write_boot_image vmlinux proof.cpio "console=ttyS0 reboot=t panic=-1 nokaslr \
//!         rdinit=/bootproof/init bootproof.nonce=my-first-image" image
//!     bootproof run image
//!
//! Documentation/arch/x86/boot.rst and zero-page.rst; ELF-64 Object File Format 1.5; Intel SDM vol.
//! 3A sections 3.4.5 and 4.5.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const GDT: u64 = 0x500;
const ZERO_PAGE: u64 = 0x7000;
const PAGE_TABLES: u64 = 0x9000;
const CMDLINE: u64 = 0x20000;
const RAM_SIZE: u64 = 512 << 20;
const HIGH_MEMORY: u64 = 1 << 20;
const EBDA: u64 = 0x9fc00;
const CMDLINE_MAX: usize = 2047;
const PT_LOAD: u64 = 1;
const PHDR_SIZE: u64 = 56;

/// With BREAK_RSI in the compiler's environment: a mistake for bootproof to find.
const RSI: u64 = match option_env!("BREAK_RSI") {
    Some(_) => ZERO_PAGE + 0x1000,
    None => ZERO_PAGE,
};

type Result<T> = std::result::Result<T, String>;

/// Guest RAM: a file that stays sparse where nothing is written.
struct Ram(File);

impl Ram {
    fn create(path: &Path) -> Result<Ram> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|error| format!("{}: {}", path.display(), error))?;
        file.set_len(RAM_SIZE).map_err(|error| format!("{}: {}", path.display(), error))?;
        Ok(Ram(file))
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        let place = format!("RAM at {:#x}", address);
        self.0.write_all_at(data, address).map_err(|error| format!("{}: {}", place, error))
    }

    fn put(&self, address: u64, value: u64, size: usize) -> Result<()> {
        self.write(address, &value.to_le_bytes()[..size])
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {}", path, error))
}

/// The little-endian number of `size` bytes at an offset, if the file has it.
fn field(file: &[u8], offset: u64, size: usize) -> Option<u64> {
    let start = usize::try_from(offset).ok()?;
    let bytes = file.get(start..start.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// A kernel in RAM: where it is entered, and what it uses, BSS included.
struct Kernel {
    entry: u64,
    start: u64,
    end: u64,
}

/// Copies each segment to its physical address.
fn load_elf(ram: &Ram, path: &str) -> Result<Kernel> {
    let file = read(path)?;
    let none = || format!("{}: no vmlinux", path);
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(none());
    }
    let entry = field(&file, 24, 8).ok_or_else(none)?;
    let table = field(&file, 32, 8).ok_or_else(none)?;
    let count = field(&file, 56, 2).ok_or_else(none)?;
    let mut kernel = Kernel { entry, start: RAM_SIZE, end: 0 };
    for number in 0..count {
        let header = table.checked_add(number * PHDR_SIZE).ok_or_else(none)?;
        let part = |offset, size| {
            header.checked_add(offset).and_then(|at| field(&file, at, size)).ok_or_else(none)
        };
        if part(0, 4)? != PT_LOAD {
            continue;
        }
        let (offset, address) = (part(8, 8)?, part(24, 8)?);
        let (in_file, in_memory) = (part(32, 8)?, part(40, 8)?);
        let bytes = offset.checked_add(in_file).and_then(|end| {
            file.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
        });
        let end = address.checked_add(in_memory).filter(|end| *end <= RAM_SIZE);
        match (bytes, end) {
            (Some(bytes), Some(end)) if in_file <= in_memory && address >= HIGH_MEMORY => {
                ram.write(address, bytes)?;
                kernel.start = kernel.start.min(address);
                kernel.end = kernel.end.max(end);
            }
            _ => return Err(format!("{}: segment {} fits neither file nor RAM", path, number)),
        }
    }
    Ok(kernel)
}

fn e820(ram: &Ram, number: u64, start: u64, end: u64, kind: u64) -> Result<()> {
    let entry = ZERO_PAGE + 0x2d0 + 20 * number;
    ram.put(entry, start, 8)?;
    ram.put(entry + 8, end - start, 8)?;
    ram.put(entry + 16, kind, 4)?;
    ram.put(ZERO_PAGE + 0x1e8, number + 1, 1)
}

fn write_tables(ram: &Ram) -> Result<()> {
    ram.put(GDT + 0x10, 0x00af9b000000ffff, 8)?; // __BOOT_CS: 64-bit code
    ram.put(GDT + 0x18, 0x00cf93000000ffff, 8)?; // __BOOT_DS: data
    ram.put(PAGE_TABLES, (PAGE_TABLES + 0x1000) | 3, 8)?; // 4 GiB mapped to themselves, 2 MiB pages
    for gib in 0..4 {
        ram.put(PAGE_TABLES + 0x1000 + 8 * gib, (PAGE_TABLES + 0x2000 + 0x1000 * gib) | 3, 8)?;
    }
    for page in 0..2048 {
        ram.put(PAGE_TABLES + 0x2000 + 8 * page, page << 21 | 0x83, 8)?;
    }
    Ok(())
}

fn write_zero_page(ram: &Ram, initrd: u64, initrd_size: u64) -> Result<()> {
    e820(ram, 0, 0, EBDA, 1)?;
    e820(ram, 1, EBDA, HIGH_MEMORY, 2)?;
    e820(ram, 2, HIGH_MEMORY, RAM_SIZE, 1)?;
    ram.put(ZERO_PAGE + 0x1fe, 0xaa55, 2)?; // boot_flag
    ram.put(ZERO_PAGE + 0x202, 0x53726448, 4)?; // "HdrS"
    ram.put(ZERO_PAGE + 0x206, 0x020c, 2)?; // protocol 2.12
    ram.put(ZERO_PAGE + 0x210, 0xff, 1)?; // type_of_loader: none of the assigned ones
    ram.put(ZERO_PAGE + 0x211, 1, 1)?; // loadflags: LOADED_HIGH
    ram.put(ZERO_PAGE + 0x218, initrd, 4)?;
    ram.put(ZERO_PAGE + 0x21c, initrd_size, 4)?;
    ram.put(ZERO_PAGE + 0x228, CMDLINE, 4)
}

fn description(kernel: &Kernel, initrd: u64, initrd_size: u64) -> String {
    let data: String = ["ds", "es", "fs", "gs", "ss"]
        .iter()
        .map(|name| format!("    \"{}\": {{\"selector\": \"0x18\"}},\n", name))
        .collect();
    let regions = [
        ("kernel", kernel.start, kernel.end - kernel.start),
        ("initrd", initrd, initrd_size),
        ("zero page", ZERO_PAGE, 0x1000),
        ("page tables", PAGE_TABLES, 0x6000),
    ]
    .map(|(name, address, size)| {
        format!("    {{\"name\": \"{}\", \"address\": \"{:#x}\", \"size\": \"{:#x}\"}}", name, address, size)
    })
    .join(",\n");
    format!(
        r#"{{
  "version": 1, "arch": "x86_64", "protocol": "linux64",
  "banks": [{{"address": 0, "size": {RAM_SIZE}, "offset": 0}}],
  "cpus": [{{
    "rip": "{entry:#x}", "rsi": "{RSI:#x}",
    "cs": {{"selector": "0x10", "attributes": "0xa09b"}},
{data}    "gdtr": {{"base": "{GDT:#x}", "limit": 31}},
    "cr0": "0x80000011", "cr3": "{PAGE_TABLES:#x}", "cr4": "0x20", "efer": "0x500"
  }}],
  "regions": [
{regions}
  ],
  "provenance": {{"written by": "write_boot_image.rs"}}
}}
"#,
        entry = kernel.entry,
    )
}

fn run(words: &[String]) -> Result<()> {
    let (vmlinux, initrd, cmdline, directory) = match words {
        [_, vmlinux, initrd, cmdline, out] if cmdline.len() <= CMDLINE_MAX => {
            (vmlinux, read(initrd)?, cmdline, Path::new(out))
        }
        _ => return Err("usage: write_boot_image VMLINUX INITRD CMDLINE DIR".to_string()),
    };
    let ram = Ram::create(&directory.join("ram.img"))?;
    let kernel = load_elf(&ram, vmlinux)?;
    let size = initrd.len() as u64;
    // At the end of RAM, page-aligned.
    let place = RAM_SIZE.checked_sub(size).map(|start| start & !0xfff).filter(|p| *p >= kernel.end);
    let place = place.ok_or("the initrd has no room behind the kernel")?;
    ram.write(place, &initrd)?;
    ram.write(CMDLINE, cmdline.as_bytes())?; // what follows is zero
    write_tables(&ram)?;
    write_zero_page(&ram, place, size)?;
    let part = directory.join("boot.json.part");
    fs::write(&part, description(&kernel, place, size)) // last, and whole
        .and_then(|()| fs::rename(&part, directory.join("boot.json")))
        .map_err(|error| format!("{}: {}", part.display(), error))
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let Err(reason) = run(&words) {
        eprintln!("write_boot_image: {}", reason);
        std::process::exit(2);
    }
}
