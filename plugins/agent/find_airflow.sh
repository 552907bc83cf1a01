# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Looks for Airflows on a host: any POSIX shell, sent over stdin, writes nothing. $1 is the airflow_home that was told, or empty.
# Only names and paths are printed, in lines of cells that end with tabs: command lines are cut after four words and environments
# are searched for AIRFLOW_HOME, AIRFLOW_CONFIG and HOME alone, because both may hold secrets.
# plugins/module_utils/_source.py reads it.

emit() { for w in "$@"; do printf '%s\t' "$(printf '%s' "$w" | tr '\t\n' '  ')"; done; printf '\n'; }
shebang() { [ -f "$1" ] && sed -n '1s/^#![[:space:]]*\([^[:space:]]*\).*/\1/p' "$1" 2>/dev/null | tr -d '\0' | head -n 1; }
emit mwaa-probe "$(hostname 2>/dev/null)" "$(id -un 2>/dev/null)" "$HOME"
told=$1
mine=$(readlink /proc/self/ns/mnt 2>/dev/null)
for f in $(grep -la airflow /proc/[0-9]*/cmdline 2>/dev/null); do
  d=${f%/cmdline}; pid=${d#/proc/}
  # words by blanks: setproctitle, which Airflow uses, turns the zero bytes between the arguments into blanks
  set -f; set -- $( (tr '\0' ' ' <"$f") 2>/dev/null); set +f
  case "$1" in *python*) : ;; *) continue ;; esac
  case "$2" in */airflow|airflow) c=$3 ;; -m) [ "$3" = airflow ] || continue; c=$4 ;; *) continue ;; esac
  a=$1; b=$2
  owner=$(ls -ld "$d" 2>/dev/null | awk '{print $3}')
  place=host; ns=$(readlink "$d/ns/mnt" 2>/dev/null); [ -n "$ns" ] && [ "$ns" != "$mine" ] && place=container
  if cat "$d/environ" >/dev/null 2>&1; then
    # setproctitle also wipes the environment that others see: the systemd unit has to tell it then
    readable=yes; tr '\0' '\n' <"$d/environ" 2>/dev/null | grep -q = || readable=wiped
    home=$(tr '\0' '\n' <"$d/environ" 2>/dev/null | sed -n 's/^AIRFLOW_HOME=//p' | head -n 1)
    conf=$(tr '\0' '\n' <"$d/environ" 2>/dev/null | sed -n 's/^AIRFLOW_CONFIG=//p' | head -n 1)
    [ -n "$home" ] || [ $readable = wiped ] || home=$(tr '\0' '\n' <"$d/environ" 2>/dev/null | sed -n 's/^HOME=//p' | head -n 1)/airflow
  else readable=no; home=; conf=; fi
  emit process "$pid" "$owner" "$place" "$readable" "$a" "$(shebang "$b")" "$home" "$conf" "$c"
done
IFS=: ; set -f; set -- $SYSTEMD_UNIT_PATH; set +f; unset IFS
for dir in "$@" /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
  for u in "$dir"/*.service; do
    [ -f "$u" ] && grep -q '^ExecStart=.*airflow' "$u" 2>/dev/null || continue
    script=$(sed -n 's/^ExecStart=//p' "$u" | grep -o '/[^ "'"'"'=]*/airflow' | head -n 1)
    name=${u##*/}
    set -- "$u" "$u".d/*.conf /etc/systemd/system/"$name".d/*.conf /run/systemd/system/"$name".d/*.conf
    home=$(sed -n 's/^Environment=.*AIRFLOW_HOME=\([^ "'"'"']*\).*/\1/p' "$@" 2>/dev/null | tail -n 1)
    for e in $(sed -n 's/^EnvironmentFile=-\{0,1\}//p' "$@" 2>/dev/null | tr -d '"'"'"); do
      h=$(sed -n 's/^\(export \)\{0,1\}AIRFLOW_HOME=//p' "$e" 2>/dev/null | tr -d '"'"'" | tail -n 1); [ -n "$h" ] && home=$h
    done
    python=$(sed -n 's/^ExecStart=[-@:+!]*\(\/[^ ]*python[0-9.]*\) .*/\1/p' "$u" | head -n 1)
    [ -n "$python" ] || python=$(shebang "$script")
    emit unit "$u" "$(sed -n 's/^User=//p' "$u" | tail -n 1)" "$python" "$home"
  done
done
for h in "$AIRFLOW_HOME" "$HOME/airflow" /opt/airflow /usr/local/airflow /var/lib/airflow /srv/airflow /home/*/airflow /opt/*/airflow; do
  [ -n "$h" ] && [ -f "$h/airflow.cfg" ] && emit home "$h"
done
for s in "$(command -v airflow 2>/dev/null)" /usr/local/bin/airflow "$HOME"/.local/bin/airflow "$HOME"/*/bin/airflow "$HOME"/.*/bin/airflow \
         /opt/*/bin/airflow /opt/*/*/bin/airflow /home/*/*/bin/airflow /srv/*/bin/airflow /usr/local/airflow/*/bin/airflow; do
  [ -n "$s" ] && [ -f "$s" ] && emit script "$s" "$(shebang "$s")"
done
if [ -n "$told" ]; then
  if [ -d "$told" ]; then state=folder; [ -f "$told/airflow.cfg" ] && state=home; else state=missing; fi
  emit given "$state" "$(ls -A "$told" 2>/dev/null | head -n 6 | tr '\n' ' ')"
  for p in "$told"/*/bin/python "$told"/.*/bin/python "$told"/../*/bin/python "$told"/../.*/bin/python; do
    [ -x "$p" ] && [ -f "${p%/python}/airflow" ] && emit near "$p"
  done
fi
docker ps --format '{{.Names}} {{.Image}}' 2>/dev/null </dev/null | grep -i airflow | while read -r n i; do emit docker "$n" "$i"; done
exit 0
