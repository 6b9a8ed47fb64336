# Supervises one container for a test process. Run as: sh -c THIS supervisor NAME
#
# Standard input is a pipe from the test process, and no other process writes to it. Each line is an order. The script
# prints one line as the response to each order. If the pipe closes, the test process has ended or crashed. Then the
# script removes the container and its volumes.
name=$1

remove() { # The engine may still be creating the container when the test process ends. So try again until it exists.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    docker inspect "$name" >/dev/null 2>&1 && docker rm -fv "$name" >/dev/null 2>&1 && return
    sleep 0.5
  done
}

trap 'exit 1' HUP INT TERM
trap remove EXIT

while read -r order; do
  case $order in
    start) docker start "$name" ;;
    stop) docker stop -t 30 "$name" ;;
    crash) docker kill "$name" ;;
    pause) docker pause "$name" ;;
    resume) docker unpause "$name" ;;
    alive) [ "$(docker inspect --format '{{.State.Running}}' "$name")" = true ] ;;
  esac >/dev/null 2>&1 && echo ok || echo failed
done
