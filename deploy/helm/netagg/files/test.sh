# The test of `helm test`: sends one event to the topic, reads it back through the API, and waits until the totals contain it.
# templates/test.yaml sets the variables TEST_*. The image has bash, coreutils and openssl, and no curl.
set -euo pipefail

say() { echo "helm test: $*"; }
die() { say "FAILED: $*" >&2; exit 1; }

host=${TEST_API%:*} port=${TEST_API##*:}
credentials=${TEST_TOKEN-}
keys=()
own_api=

clean_up() {
  local key
  for key in "${keys[@]}"; do netagg keys revoke "$key" || say "revoke the key $key by hand; it expires after 15 minutes"; done
  if [ -n "$own_api" ] && kill "$own_api" 2>/dev/null; then wait "$own_api" || true; fi
}
trap clean_up EXIT

# Prints the response to GET PATH, with its headers.
get() { # PATH CREDENTIALS
  local request="GET $1 HTTP/1.0"$'\r\n'"Host: $host:$port"$'\r\n'
  if [ -n "$2" ]; then request+="Authorization: Bearer $2"$'\r\n'; fi
  request+=$'\r\n'
  if [ "$TEST_TLS" = true ]; then
    # The certificate is for the name of clients outside of the cluster, so openssl does not compare the name.
    printf %s "$request" | timeout 15 openssl s_client -quiet -connect "$host:$port" 2>/dev/null
  else
    timeout 15 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf %s "$2" >&3 && cat <&3' "$host" "$port" "$request"
  fi
}

# Makes a key for 15 minutes and prints it.
make_key() { # ARGUMENT...
  netagg keys create --name "helm test $id" --expires-in 15m "$@"
}

# Repeats GET PATH until the response passes a check: CHECK RESPONSE.
await() { # MEANING PATH CREDENTIALS CHECK...
  local meaning=$1 path=$2 credentials=$3 response='' deadline=$((SECONDS + TEST_SECONDS))
  shift 3
  until response=$(get "$path" "$credentials" | tr -d '\0') && "$@" "$response"; do
    if [ -n "$own_api" ] && ! kill -0 "$own_api" 2>/dev/null; then die "the API process of the test has ended"; fi
    if [ $SECONDS -ge $deadline ]; then
      die "$meaning: not within $TEST_SECONDS s. The last response to $path: ${response:0:1000}"
    fi
    sleep 2
  done
  say "$meaning: yes"
}

has_event() { [[ $1 == *"$id"* ]]; }

# Whether the totals contain every event that the broker held when the test sent its event.
is_complete() {
  local complete
  complete=$(grep -o '"complete_through":"[^".Z]*' <<<"$1" | cut -d'"' -f4) || return 1
  # Times in UTC, of the same form: the order of the text is the order of time.
  [[ $complete > $sent ]]
}

id=$(cat /proc/sys/kernel/random/uuid)
user=helm-test-$id
# A minute ago: the clock of the broker or of the API may be behind.
started=$(date -u -d '1 minute ago' +%Y-%m-%dT%H:%M:%SZ)

say "sending the event $id of the user $user"
printf '{"event_id":"%s","source_id":"helm-test","user_id":"%s","type":"SMS_SENT","started_at":"%s"}\n' \
  "$id" "$user" "$started" | netagg import -
sent=$(date -u +%Y-%m-%dT%H:%M:%S)

if [ "$TEST_OWN_API" = true ]; then
  say "the test has no credentials for the API of the release, so it starts an API process of its own"
  API_BIND=127.0.0.1 API_AUTH=none API_HTTP_PORT=$port API_GRPC_PORT=19090 PPROF_PORT_API=16062 api &
  own_api=$!
fi

detail=$credentials totals=$credentials
if [ "$TEST_KEYS" = true ]; then
  detail=$(make_key --scope detail:read --user-id "$user")
  keys+=("$(cut -d_ -f2 <<<"$detail")")
  totals=$(make_key --scope aggregates:read)
  keys+=("$(cut -d_ -f2 <<<"$totals")")
fi

await "the API returns the event" "/api/v1/users/$user/detail" "$detail" has_event
if [ "$TEST_COUNTS" = true ]; then
  await "the totals contain the event" "/api/v1/aggregates?granularity=DAY" "$totals" is_complete
fi
say "passed"
