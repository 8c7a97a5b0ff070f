//! Writes the stubs of `protos/kvblock/v1` into a folder: `kvblock-stubs PROTOS FOLDER`.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [protos, folder] = arguments.as_slice() else {
        return Err("usage: kvblock-stubs PROTOS FOLDER".into());
    };
    let files = ["kvblock/v1/errors.proto", "kvblock/v1/kvblock.proto"];
    let descriptors = protox::compile(files, [protos])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .out_dir(folder)
        .compile_fds(descriptors)?;
    Ok(())
}
