//! What a script sees of the verbs that need no daemon: stdout, stderr, exit codes.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const FILE: &str = "[service.web]\nhost = \"app.example.com\"\nimage = \"web\"\nport = 3000\n";

/// Runs the program in `dir`, with no variables but these.
fn switchback_with(dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.current_dir(dir).args(words).env_clear().envs(variables.iter().copied());
    command.output().expect("the program starts")
}

fn switchback(dir: &TempDir, words: &[&str]) -> Output {
    switchback_with(dir.path(), words, &[])
}

fn empty() -> TempDir {
    TempDir::new().expect("a directory")
}

fn with_file(text: &str) -> TempDir {
    let dir = empty();
    std::fs::write(dir.path().join("switchback.toml"), text).expect("a file");
    dir
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exited by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn without_a_verb_the_help_is_shown_and_the_exit_code_is_2() {
    let output = switchback(&empty(), &[]);
    assert_eq!(code(&output), 2);
    assert!(stdout(&output).is_empty());
    assert!(stderr(&output).contains("Usage: switchback"));
}

#[test]
fn help_that_was_asked_for_stands_on_stdout() {
    let output = switchback(&empty(), &["--help"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("7  the configuration is not valid"));
    assert_eq!(code(&switchback(&empty(), &["chekc"])), 2);
    assert_eq!(code(&switchback(&empty(), &["check", "--nope"])), 2);
}

#[test]
fn a_new_file_is_valid_and_never_overwritten() {
    let dir = empty();
    let output = switchback(&dir, &["init"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let path = dir.path().join("switchback.toml");
    let written = std::fs::read_to_string(&path).expect("a file");
    assert!(written.lines().count() <= 40);
    assert_eq!(code(&switchback(&dir, &["check"])), 0);

    std::fs::write(&path, "mine").expect("a file");
    let output = switchback(&dir, &["init"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("switchback.toml exists already"));
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "mine");
    let output = switchback(&dir, &["init", "no/such/dir.toml"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("there is no such directory"));
}

#[test]
fn check_says_what_is_valid_on_stdout() {
    let output = switchback(&with_file(FILE), &["check"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).is_empty());
    let expected = "\
switchback.toml is valid
http 0.0.0.0:80  https off  admin 127.0.0.1:9900
SERVICE  ROUTES           RUNTIME  SOURCE  STEPS
web      app.example.com  docker   web     5% 25% 50% 100%
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn check_draws_what_is_wrong_on_stderr_and_exits_with_7() {
    let output = switchback(&with_file(&format!("{FILE}bake = \"30\"\nreplcas = 2\n")), &["check"]);
    assert_eq!(code(&output), 7);
    assert!(stdout(&output).is_empty());
    let expected = r#"error: `bake` is not a duration
 --> switchback.toml:5:8
  |
5 | bake = "30"
  |        ^^^^ a duration needs a unit: "30s" for seconds, or ms, m, h, d

error: there is no key `replcas` in [service.web]
 --> switchback.toml:6:1
  |
6 | replcas = 2
  | ^^^^^^^ did you mean `replicas`?

2 errors
"#;
    assert_eq!(stderr(&output), expected);
}

#[test]
fn check_speaks_json() {
    let output = switchback(&with_file("[listne]\n"), &["check", "-o", "json"]);
    assert_eq!(code(&output), 7);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["valid"], false);
    assert_eq!(answer["problems"][0]["line"], 1);
    assert_eq!(answer["problems"][0]["column"], 2);
    assert_eq!(answer["problems"][0]["file"], "switchback.toml");
    let output = switchback(&with_file(FILE), &["check", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((code(&output), &answer["valid"]), (0, &serde_json::Value::Bool(true)));
    assert_eq!(answer["services"][0], "web");
}

#[test]
fn a_missing_file_or_certificate_is_named() {
    let output = switchback(&empty(), &["check"]);
    assert_eq!(code(&output), 7);
    assert!(stderr(&output).contains("there is no configuration"), "{}", stderr(&output));
    let output = switchback(&empty(), &["check", "-c", "other.toml"]);
    assert_eq!(code(&output), 7);
    assert!(stderr(&output).contains("other.toml cannot be read: there is no such file"));
    let file = format!("[tls]\ncert = \"a.pem\"\nkey = \"a.key\"\n{FILE}");
    let output = switchback(&with_file(&file), &["check"]);
    assert_eq!(code(&output), 7);
    let said = stderr(&output);
    assert!(said.contains("the certificate a.pem cannot be read: there is no such file"), "{said}");
}

#[test]
fn the_file_is_found_by_flag_then_variable_then_place() {
    let dir = with_file(FILE);
    let other = dir.path().join("other.toml");
    std::fs::write(&other, FILE.replace("web", "other")).expect("a file");
    let services = |words: &[&str], variables: &[(&str, &str)]| {
        let output = switchback_with(dir.path(), words, variables);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["services"][0].as_str().expect("a service").to_owned()
    };
    let json = ["check", "-o", "json"];
    assert_eq!(services(&json, &[]), "web");
    assert_eq!(services(&json, &[("SWITCHBACK_CONFIG", "other.toml")]), "other");
    let flag = ["check", "-o", "json", "-c", "switchback.toml"];
    assert_eq!(services(&flag, &[("SWITCHBACK_CONFIG", "other.toml")]), "web");
}

#[test]
fn config_show_tells_where_values_come_from_and_hides_secrets() {
    let dir = with_file(&format!("{FILE}env = {{ PASSWORD = \"hunter2\" }}\n"));
    let variables = [("SWITCHBACK_LISTEN_HTTP", "127.0.0.1:8080")];
    let words = ["config", "show", "--set", "service.web.steps=1% 100%"];
    let output = switchback_with(dir.path(), &words, &variables);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("http = \"127.0.0.1:8080\"  # SWITCHBACK_LISTEN_HTTP\n"), "{text}");
    assert!(text.contains("steps = \"1% 100%\"  # --set\n"), "{text}");
    assert!(text.contains("bake = \"30s\"  # default\n"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    // What is shown is a file again.
    let again = with_file(&text);
    assert_eq!(code(&switchback(&again, &["check"])), 0);
    let json = switchback(&dir, &["config", "show", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(shown["service"]["web"]["port"], 3000);
    assert_eq!(shown["listen"]["https"], "off");
}

#[test]
fn the_schema_completions_and_manual_are_written() {
    let dir = empty();
    let schema = switchback(&dir, &["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert_eq!(schema["title"], "switchback.toml");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = switchback(&dir, &["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("switchback"), "{shell}");
    }
    assert_eq!(code(&switchback(&dir, &["completions", "tcsh"])), 2);
    assert!(stdout(&switchback(&dir, &["man"])).starts_with(".ie"));
    let pages = dir.path().join("man1");
    std::fs::create_dir(&pages).expect("a directory");
    assert_eq!(code(&switchback(&dir, &["man", "--dir", "man1"])), 0);
    assert!(pages.join("switchback-check.1").exists());
    assert_eq!(code(&switchback(&dir, &["man", "--dir", "nowhere"])), 1);
}

#[test]
fn the_version_is_one_line() {
    let output = switchback(&empty(), &["version"]);
    let expected = format!("switchback {} (", env!("CARGO_PKG_VERSION"));
    assert!(stdout(&output).starts_with(&expected));
    let output = switchback(&empty(), &["version", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["config", "schema"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}

#[test]
fn no_colour_reaches_a_pipe() {
    let output = switchback_with(
        with_file("x = 1\n").path(),
        &["check"],
        &[("TERM", "xterm-256color"), ("NO_COLOR", "1")],
    );
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}

/// The blocks of the README are one file, as it says: a table that is named twice goes on.
#[test]
fn what_the_readme_configures_is_valid() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).expect("a file");
    let blocks: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    let [ten_lines, in_place_of_nginx] = blocks[..] else { panic!("{blocks:?}") };
    let dir =
        with_file(&format!("{ten_lines}{}", in_place_of_nginx.replacen("[service.web]\n", "", 1)));
    for directory in ["certs", "downloads", "public"] {
        std::fs::create_dir(dir.path().join(directory)).expect("a directory");
    }
    let made = rcgen::generate_simple_self_signed(vec!["app.example.com".to_owned()]);
    let made = made.expect("a certificate");
    let password = "ann:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
    for (file, text) in [
        ("certs/app.pem", made.cert.pem()),
        ("certs/app.key", made.signing_key.serialize_pem()),
        ("office.txt", "203.0.113.7\n".to_owned()),
        ("users.htpasswd", password.to_owned()),
    ] {
        std::fs::write(dir.path().join(file), text).expect("a file");
    }
    let output = switchback(&dir, &["check"]);
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
}
