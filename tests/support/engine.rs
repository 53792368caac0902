//! A Docker Engine for the tests: the one that is there, or a private one.
//!
//! The one at `DOCKER_HOST` or at the usual socket is taken when it answers. Otherwise, as root and
//! with `dockerd` at hand, a private one is started once per test process, with its own data, socket
//! and bridge, and goes with it. Otherwise the reason is said aloud, and under `CI=true` that is a
//! failure. `SWITCHBACK_TEST_PRIVATE_ENGINE=1` asks for a private one in any case.
//!
//! Images are made of busybox alone, imported without a registry.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions};
use futures_util::StreamExt;

/// What a private engine gets to start; it takes two to three seconds.
const START: Duration = Duration::from_secs(60);

/// An engine and where it listens.
#[derive(Debug, Clone)]
pub struct DockerHost {
    /// In the words of `DOCKER_HOST`.
    pub url: String,
}

impl DockerHost {
    /// A client to look behind the runtime's back.
    pub fn client(&self) -> Docker {
        let version = bollard::API_DEFAULT_VERSION;
        match self.url.strip_prefix("unix://") {
            Some(path) => Docker::connect_with_unix(path, 60, version).unwrap(),
            None => Docker::connect_with_http(&self.url, 60, version).unwrap(),
        }
    }
}

/// The engine, or none and the reason on stderr.
pub fn engine() -> Option<DockerHost> {
    static ENGINE: OnceLock<Result<DockerHost, String>> = OnceLock::new();
    match ENGINE.get_or_init(find) {
        Ok(host) => Some(host.clone()),
        Err(why) => {
            let why = format!("no Docker Engine for this test: {why}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

/// The test image: busybox and nothing else, on this engine.
pub fn busybox(host: &DockerHost) -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| import(host, &[]))
}

/// The name of an image of busybox with these Dockerfile instructions; imported unless it is there.
pub fn import(host: &DockerHost, changes: &[&str]) -> String {
    let root = root_of_busybox();
    let mut hasher = DefaultHasher::new();
    (&root, changes).hash(&mut hasher);
    let (name, tag) = ("switchback-test", format!("{:016x}", hasher.finish()));
    let full = format!("{name}:{tag}");
    let made = full.clone();
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(name.to_owned()),
        tag: Some(tag),
        changes: changes.iter().map(ToString::to_string).collect(),
        ..CreateImageOptions::default()
    };
    let client = host.client();
    on_a_runtime(async move {
        if client.inspect_image(&made).await.is_ok() {
            return;
        }
        let body = bollard::body_full(root.into());
        let mut steps = std::pin::pin!(client.create_image(Some(options), Some(body), None));
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
    });
    full
}

/// Takes the tags with which a daemon kept images.
pub fn remove_tags(host: &DockerHost, ours: &str) {
    let client = host.client();
    on_a_runtime(async move {
        let options = ListImagesOptions {
            filters: Some([("reference".to_owned(), vec!["switchback/*".to_owned()])].into()),
            ..ListImagesOptions::default()
        };
        for image in client.list_images(Some(options)).await.unwrap_or_default() {
            for tag in image.repo_tags.iter().filter(|tag| tag.ends_with(ours)) {
                let options = RemoveImageOptions::default();
                let _gone = client.remove_image(tag, Some(options), None).await;
            }
        }
    });
}

/// Removes the images of which a tag or a digest begins so.
pub fn remove_images(host: &DockerHost, begin: &str) {
    let client = host.client();
    on_a_runtime(async move {
        let all = client.list_images(None::<ListImagesOptions>).await.unwrap_or_default();
        let ours = |name: &String| name.starts_with(begin);
        for image in all {
            if image.repo_tags.iter().chain(&image.repo_digests).any(ours) {
                let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
                let _gone = client.remove_image(&image.id, Some(options), None).await;
            }
        }
    });
}

/// Removes images of a name that were made long ago and have no container; each build of the program
/// makes one of the sample app. Those of busybox are the same for all builds, and stay.
pub fn remove_stale(host: &DockerHost, name: &str) {
    const LONG_AGO: Duration = Duration::from_secs(3 * 60 * 60);
    let client = host.client();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let before = i64::try_from((now - LONG_AGO).as_secs()).unwrap();
    on_a_runtime(async move {
        let options = ListImagesOptions {
            filters: Some([("reference".to_owned(), vec![name.to_owned()])].into()),
            ..ListImagesOptions::default()
        };
        let all = client.list_images(Some(options)).await.unwrap_or_default();
        for tag in all.iter().filter(|image| image.created < before).flat_map(|i| &i.repo_tags) {
            let _used = client.remove_image(tag, None::<RemoveImageOptions>, None).await;
        }
    });
}

/// Runs a future to its end, from inside or outside of another async runtime.
pub fn on_a_runtime<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    std::thread::scope(|scope| {
        let run = || {
            let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
            builder.unwrap().block_on(future)
        };
        scope.spawn(run).join().unwrap()
    })
}

fn root_of_busybox() -> Vec<u8> {
    root_with(&[])
}

/// The root file system of the test image, with further files.
pub fn root_with(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name("/bin/busybox", "bin/busybox").unwrap();
    for applet in
        ["sh", "httpd", "sleep", "tail", "echo", "cat", "id", "touch", "test", "rm", "kill", "dd"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let page = [("www/index.html", "hello from a container\n"), ("tmp/.keep", "")];
    for (path, text) in page.iter().chain(files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn find() -> Result<DockerHost, String> {
    if !Path::new("/bin/busybox").exists() {
        return Err(
            "there is no /bin/busybox to make images of (install busybox-static)".to_owned()
        );
    }
    if std::env::var_os("SWITCHBACK_TEST_PRIVATE_ENGINE").is_none() {
        let named = std::env::var("DOCKER_HOST").ok();
        let url = named.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        if answers(&url) {
            return Ok(DockerHost { url });
        }
    }
    private()
}

fn answers(url: &str) -> bool {
    let Some(path) = url.strip_prefix("unix://") else {
        return std::net::TcpStream::connect(url.trim_start_matches("tcp://")).is_ok();
    };
    let ping = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        std::io::read_to_string(stream)
    };
    ping().is_ok_and(|answer| answer.contains(" 200 "))
}

/// A dockerd of our own for all tests of this process.
fn private() -> Result<DockerHost, String> {
    let (host, mut shell) = begin("switchback-engine", "sbt", 200, None)?;
    // Open until the process ends.
    std::mem::forget(shell.stdin.take());
    Ok(host)
}

/// A dockerd of one story, with little room; it goes with this.
pub struct SmallEngine {
    pub host: DockerHost,
    shell: Child,
}

impl SmallEngine {
    /// One whose data has so many megabytes of memory.
    pub fn start(megabytes: u32) -> Result<Self, String> {
        let (host, shell) = begin("switchback-small", "sbs", 150, Some(megabytes))?;
        Ok(Self { host, shell })
    }

    /// Where its data lies: a mount of its own.
    pub fn data(&self) -> PathBuf {
        let socket = self.host.url.trim_start_matches("unix://");
        Path::new(socket).parent().unwrap().join("data")
    }
}

impl Drop for SmallEngine {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ended = self.shell.wait();
    }
}

/// A dockerd held by a shell that lives as long as the pipe to it: however this process ends, the
/// engine is stopped and its bridge, mounts and files are removed.
fn begin(
    home: &str,
    bridge: &str,
    net: u32,
    megabytes: Option<u32>,
) -> Result<(DockerHost, Child), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("none answers, and starting a private one takes root".to_owned());
    }
    let has = |program: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
            .any(|directory| directory.join(program).exists())
    };
    for program in ["dockerd", "ip"] {
        if !has(program) {
            return Err(format!("none answers, and there is no {program} to start a private one"));
        }
    }
    let pid = std::process::id();
    let home = std::env::temp_dir().join(format!("{home}-{pid}"));
    std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
    let script = r#"
        PATH=$PATH:/usr/sbin:/sbin; home=$1; bridge=$2; net=$3; size=$4
        trap '' INT HUP TERM
        mkdir -p "$home/data"
        [ -z "$size" ] || mount -t tmpfs -o "size=${size}m" tmpfs "$home/data" || exit 1
        ip link add name "$bridge" type bridge && ip addr add "$net.1/24" dev "$bridge" && ip link set "$bridge" up
        dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" \
            --host "unix://$home/docker.sock" --bridge "$bridge" --iptables=false --ip-masq=false \
            --containerd-namespace "$bridge" --containerd-plugins-namespace "$bridge-p" \
            >"$home/log" 2>&1 </dev/null &
        cat >/dev/null
        kill $!; wait $!
        ip link del "$bridge"
        [ -z "$size" ] || umount -l "$home/data"
        rm -rf "$home"
    "#;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh"]).arg(&home).args([
        format!("{bridge}{pid}"),
        // Out of the private range, where nobody's office is likely to be.
        format!("10.{}.{}", net + pid % 50, pid / 50 % 250),
        megabytes.map_or(String::new(), |megabytes| megabytes.to_string()),
    ]);
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let shell = shell.stdin(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let url = format!("unix://{}/docker.sock", home.display());
    let begun = Instant::now();
    while !answers(&url) {
        if begun.elapsed() > START {
            let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it said nothing").to_owned();
            return Err(format!("a private dockerd did not start: {last}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((DockerHost { url }, shell))
}
