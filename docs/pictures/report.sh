# Draws docs/pictures/report.png, the top of the report of "ccdgraph demo"; needs chromium.
#
#     bash docs/pictures/report.sh runs/demo
set -euo pipefail
scratch=$(mktemp -d)
ccdgraph report "$1" --to "$scratch/report.html"
root=(); [ "$(id -u)" != 0 ] || root=(--no-sandbox)
chromium --headless=new --disable-gpu "${root[@]}" --hide-scrollbars \
    --user-data-dir="$scratch/profile" --window-size=900,1050 \
    --screenshot="$(dirname "$0")/report.png" "file://$scratch/report.html"
rm -r "$scratch"
