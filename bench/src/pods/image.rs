//! An image of a shell and nothing else, made of this machine's busybox, as `docker save` writes it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

/// Where Debian's package `busybox-static` has it.
const BUSYBOX: &str = "/bin/busybox";
/// The image's name.
pub const NAME: &str = "registry.test/box:v1";

/// Writes the archive, and answers where it is.
pub fn make(dir: &Path) -> anyhow::Result<PathBuf> {
    let busybox = std::fs::read(BUSYBOX)
        .with_context(|| format!("{BUSYBOX} can't be read: `apt-get install busybox-static`"))?;
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", 0o755, &busybox)?;
    for name in ["sh", "sleep"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    let layer = layer.into_inner()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &layer);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({"os": "linux", "architecture": architecture(), "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    append(&mut archive, "config.json", 0o644, config.to_string().as_bytes())?;
    append(&mut archive, "layer.tar", 0o644, &layer)?;
    let path = dir.join("box.tar");
    std::fs::write(&path, archive.into_inner()?)?;
    Ok(path)
}

fn append(to: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    Ok(to.append_data(&mut header, name, bytes)?)
}

/// This machine's, in the words of images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
