# Supervises one native server for a test process. Run as: sh -c THIS supervisor FOLDER STOP_SIGNAL CRASH_SIGNAL COMMAND...
#
# Standard input is a pipe from the test process, and no other process writes to it. Each line is an order. The script
# prints one line as the response to each order. If the pipe closes, the test process has ended or crashed. Then the
# script kills the server and removes its folder.
folder=$1 stop=$2 crash=$3
shift 3
pid=
mkdir -p "$folder"
chmod 755 "$folder" # PostgreSQL runs as another user, which needs access to this folder.

all() { # Sends SIGNAL to the server and its children, because PostgreSQL has several processes.
  # The server gets the signal first, so that it starts no more children. If a process has ended meanwhile, this is no
  # error.
  kill -s "$1" "$pid" 2>/dev/null
  # shellcheck disable=SC2046
  kill -s "$1" $(pgrep -P "$pid") 2>/dev/null
  return 0
}

alive() {
  case $(ps -o stat= -p "$pid" 2>/dev/null) in '' | Z*) return 1 ;; esac
}

end() { # Ends the server with SIGNAL. A paused server first continues, because it handles no signal while it is paused.
  [ -n "$pid" ] || return 0
  all CONT
  kill -s "$1" "$pid" 2>/dev/null
  wait "$pid"
  pid=
}

trap 'exit 1' HUP INT TERM
trap 'end "$crash"; rm -rf "$folder"' EXIT

while read -r order; do
  case $order in
    start) "$@" >>"$folder/log" 2>&1 </dev/null & pid=$! ;;
    stop) end "$stop" ;;
    crash) end "$crash" ;;
    pause) all STOP && alive ;;
    resume) all CONT && alive ;;
    alive) alive ;;
  esac && echo ok || echo failed
done
