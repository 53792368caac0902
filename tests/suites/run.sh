#!/bin/sh
# Other people's suites, and attacks, against a Switchback on loopback. See README.md beside this file.
#   tests/suites/run.sh httpwg smugglex sslyze testssl slowhttptest attacks
#   tests/suites/run.sh kosoku
# SWITCHBACK names the binary (default: target/release/switchback); PYTHON one that has the modules.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${SWITCHBACK:-$here/../../target/release/switchback}")
python=${PYTHON:-python3}
work=$(mktemp -d)
pids=
# shellcheck disable=SC2086 # a list of numbers
trap 'kill $pids 2>/dev/null || true; rm -rf "$work"' EXIT
http=18080 https=18443 origin=18081 echo=18082
# WebSockets have an origin of their own.
behind=$origin
[ "$*" != kosoku ] || behind=$echo

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
http = "127.0.0.1:$http"
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
endpoints = ["127.0.0.1:$behind"]
probe.kind = "tcp"
EOF
"$python" "$here/origin.py" $origin & pids="$pids $!"
if [ $behind = $echo ]; then
    "$python" "$here/echo.py" $echo & pids="$pids $!"
fi
"$binary" run -c "$work/switchback.toml" > "$work/log" 2>&1 & proxy=$!
pids="$pids $proxy"
tries=0
until grep -q '"promoted' "$work/log" || grep -q 'promoted: ' "$work/log"; do
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
        httpwg -a 127.0.0.1:$http -- sleep 300 > "$work/httpwg" 2>&1 || true
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
        kosoku -o "$work/direct" 127.0.0.1:$echo > /dev/null || true
        kosoku -o "$work/through" 127.0.0.1:$http > /dev/null || true
        "$python" "$here/same.py" "$work/direct" "$work/through" || failed="$failed $suite" ;;
    sslyze) "$python" -m sslyze --mozilla_config intermediate --certinfo_ca_file "$work/ca.pem" 127.0.0.1:$https || failed="$failed $suite" ;;
    testssl) testssl --quiet --color 0 -p -s -f -U 127.0.0.1:$https || failed="$failed $suite" ;;
    slowhttptest)
        for mode in -H -B -R -X; do
            slowhttptest $mode -c 500 -r 200 -l "${SECONDS_EACH:-20}" -i 5 -p 3 -u http://127.0.0.1:$http/ > "$work/slow" 2>&1 || true
            sed 's/\x1b\[[0-9;]*m//g' "$work/slow" | grep -E 'service available|test type|Exit' | tail -3
            ! grep -q 'service available: *.*NO' "$work/slow" || failed="$failed slow$mode"
        done ;;
    attacks) "$python" "$here/attacks.py" $http $proxy || failed="$failed $suite" ;;
    *) echo "there is no suite $suite"; exit 2 ;;
    esac
    kill -0 $proxy || failed="$failed ended"
done
# Whatever a suite says: no panic, no line of level ERROR.
if grep -E '"level":"ERROR"|panicked' "$work/log"; then failed="$failed log"; fi
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
