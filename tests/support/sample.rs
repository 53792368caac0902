//! The sample app as an image.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::OnceLock;

use switchback::demo::image;
use switchback::runtime::docker::DockerRuntime;

use super::daemon::PROGRAM;
use super::engine::{DockerHost, on_a_runtime, remove_stale};

/// The sample app as an image on this engine.
pub fn sample_image(host: &DockerHost) -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        // Others may test another build on the same engine.
        let built = fs::metadata(PROGRAM).unwrap();
        let mut hasher = DefaultHasher::new();
        (built.len(), built.modified().unwrap()).hash(&mut hasher);
        let name = format!("switchback-story:{:016x}", hasher.finish());
        remove_stale(host, "switchback-story");
        let root = image::root_file_system(Path::new(PROGRAM)).unwrap();
        let runtime = DockerRuntime::new(&host.url, "story").unwrap();
        let made = name.clone();
        on_a_runtime(async move { runtime.import(&made, root, image::PROGRAM).await.unwrap() });
        name
    })
}
