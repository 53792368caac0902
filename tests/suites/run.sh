#!/bin/sh
# Other people's suites, and attacks, against a Switchback on loopback. See README.md beside this file.
#   tests/suites/run.sh httpwg smugglex sslyze testssl slowhttptest attacks kosoku grpc grpcweb browser browser3 httplint
# PORT is the first of eight in a row that nobody listens on; CASES are those of kosoku (default: all); SWITCHBACK names the binary (default: target/release/switchback); PYTHON one that has the modules.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${SWITCHBACK:-$here/../../target/release/switchback}")
python=${PYTHON:-python3}
# What comes with modules lies beside that Python.
case $python in */*) PATH=$(dirname "$python"):$PATH ;; esac
work=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # a list of numbers
trap 'kill $pids 2>/dev/null || true; rm -rf "$work"' EXIT
first=${PORT:-18080}
http=$first https=$((first + 1)) origin=$((first + 2)) echo=$((first + 3)) calls=$((first + 4)) pages=$((first + 5))
others=$((first + 6)) web=$((first + 7))
CASES=${CASES:-}
# A pattern of cases is no pattern of files.
set -f
# Workers share their ports: a stranger's would have half of the connections.
for port in $http $https $origin $echo $calls $pages $others $web; do
    if "$python" -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; then
        echo "somebody listens on port $port; PORT names the first of others" >&2
        exit 2
    fi
done

# A certificate of a CA made on the spot.
cd "$work"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -keyout ca.key -out ca.pem -subj /CN=suites \
    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout key.pem -out request.pem -subj /CN=localhost 2>/dev/null
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n' > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 30 -extfile extensions \
    -out leaf.pem 2>/dev/null
cat leaf.pem ca.pem > cert.pem
cd - > /dev/null
chmod 600 "$work/key.pem"
cat > "$work/switchback.toml" <<EOF
[listen]
http = ["127.0.0.1:$http", "127.0.0.2:$http", "127.0.0.3:$http", "127.0.0.4:$http"]
https = "127.0.0.1:$https"
[tls]
cert = "cert.pem"
key = "key.pem"
[admin]
socket = "$work/admin.sock"
listen = "off"
[state]
dir = "$work/state"
[service.web]
host = "*"
endpoints = ["127.0.0.1:$origin"]
probe.kind = "tcp"
https_redirect = false
EOF
# What a suite needs behind the proxy is a service of its own.
service() {
    printf '[service.%s]\nhost = "%s"\nendpoints = ["127.0.0.1:%s"]\nprobe.kind = "tcp"\nhttps_redirect = false\n%s\n' \
        "$1" "$2" "$3" "$4" >> "$work/switchback.toml"
}
"$python" "$here/origin.py" $origin & pids="$pids $!"
"$python" "$here/origin.py" $others & pids="$pids $!"
service others others.localhost $others ""
for suite in "$@"; do
    case $suite in
    kosoku)
        "$python" "$here/echo.py" $echo > "$work/echo.log" 2>&1 & pids="$pids $!"
        # By an address: not every machine finds names below localhost.
        service echo 127.0.0.2 $echo "" ;;
    grpcweb)
        "$python" "$here/grpc_web.py" serve $web > "$work/web.log" 2>&1 & pids="$pids $!"
        service web1 127.0.0.3 $web ""
        service web2 127.0.0.4 $web 'protocol = "h2c"' ;;
    grpc)
        "$python" "$here/grpc_cases.py" serve $calls & pids="$pids $!"
        service calls calls.localhost $calls 'protocol = "h2c"' ;;
    browser | browser3)
        "$python" "$here/browser.py" serve $pages "$work" & pids="$pids $!"
        service pages localhost $pages "" ;;
    esac
done
# Only a binary that speaks HTTP/3 takes this.
case " $* " in *" browser3 "*) sed -i 's/^\[listen\]$/&\nhttp3 = true/' "$work/switchback.toml" ;; esac
"$binary" run -c "$work/switchback.toml" > "$work/log" 2>&1 & proxy=$!
pids="$pids $proxy"
tries=0
services=$(grep -c '^\[service' "$work/switchback.toml")
until [ "$(grep -c 'promoted: ' "$work/log")" -ge "$services" ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { cat "$work/log"; exit 1; }
    sleep 0.1
done

failed=
for suite in "$@"; do
    echo "== $suite"
    case $suite in
    httpwg)
        # The misses are listed in README.md; fewer passes than these are a step back.
        # A frame has a quarter of a second otherwise, which a busy machine may need; and where a connection
        # takes longer than that, the suite ends with what it has.
        httpwg --connect-timeout 5000 --frame-timeout 3000 -a 127.0.0.1:$http -- sleep 300 > "$work/httpwg" 2>&1 || true
        sed 's/\x1b\[[0-9;]*m//g' "$work/httpwg" | grep -A2 'Test failed' | grep -v '^--$' || true
        tail -2 "$work/httpwg" | sed 's/\x1b\[[0-9;]*m//g'
        passed=$(sed 's/\x1b\[[0-9;]*m//g' "$work/httpwg" | sed -n 's,.*Passed \([0-9]*\)/107.*,\1,p')
        [ "${passed:-0}" -ge 100 ] || failed="$failed $suite" ;;
    smugglex)
        all=cl-te,te-cl,te-te,h2c,h2,cl-edge,cl-0,0-cl,parser-discrepancy
        smugglex --json -c $all http://127.0.0.1:$http > "$work/one.json" || failed="$failed smugglex-h1"
        smugglex --json -k -c $all,h2-downgrade https://127.0.0.1:$https > "$work/two.json" || failed="$failed smugglex-tls"
        grep -h check_type "$work/one.json" "$work/two.json" | sort | uniq -c ;;
    kosoku)
        # shellcheck disable=SC2086 # a list of patterns
        "$python" "$here/same.py" 127.0.0.1:$echo 127.0.0.2:$http "$work" $CASES || failed="$failed $suite" ;;
    grpc)
        "$python" "$here/grpc_cases.py" ask $calls || failed="$failed grpc-direct"
        "$python" "$here/grpc_cases.py" ask $http calls.localhost || failed="$failed $suite" ;;
    grpcweb)
        "$python" "$here/grpc_web.py" ask 127.0.0.1:$web || failed="$failed grpcweb-direct"
        "$python" "$here/grpc_web.py" ask 127.0.0.3:$http "$work/admin.sock" web1 || failed="$failed $suite-h1"
        "$python" "$here/grpc_web.py" ask 127.0.0.4:$http "$work/admin.sock" web2 || failed="$failed $suite-h2c" ;;
    browser) "$python" "$here/browser.py" ask https://localhost:$https/ "$work" || failed="$failed $suite" ;;
    browser3)
        spki=$(openssl x509 -in "$work/leaf.pem" -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64)
        "$python" "$here/browser.py" ask https://localhost:$https/ "$work" chromium "$spki" || failed="$failed $suite" ;;
    httplint) "$python" "$here/lint.py" $origin $http || failed="$failed $suite" ;;
    sslyze) "$python" -m sslyze --mozilla_config intermediate --certinfo_ca_file "$work/ca.pem" 127.0.0.1:$https || failed="$failed $suite" ;;
    testssl) testssl --quiet --color 0 -p -s -f -U 127.0.0.1:$https || failed="$failed $suite" ;;
    slowhttptest) "$python" "$here/slow.py" $http "${SECONDS_EACH:-20}" || failed="$failed $suite" ;;
    attacks) "$python" "$here/attacks.py" $http $proxy || failed="$failed $suite" ;;
    *) echo "there is no suite $suite"; exit 2 ;;
    esac
    kill -0 $proxy || failed="$failed ended"
done
# Whatever a suite says: no panic, no line of level ERROR.
if grep -E '"level":"ERROR"|panicked' "$work/log"; then failed="$failed log"; fi
[ -z "$failed" ] || { grep -v '"level":"INFO"' "$work/log" | tail -20; echo "failed:$failed"; exit 1; }
