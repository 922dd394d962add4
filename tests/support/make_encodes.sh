#!/bin/sh
# make_encodes.sh REAL OUT: the videos of the table by codec in docs/benchmarks.md, made by ffmpeg of
# UCF101's AVIs under REAL: five of each codec, and one of 90 s. Then: har-shards bench OUT --no-builds
set -eu
real=$(realpath "$1") out=$2
mkdir -p "$out"
encode() { # file, start and length in seconds, size, arguments of ffmpeg
    file=$out/$1 start=$2 seconds=$3 size=$4
    shift 4
    ffmpeg -nostdin -loglevel error -y -f concat -safe 0 -i "$out/list.txt" -ss "$start" \
        -t "$seconds" -an -r 30 -vf "scale=$size" -pix_fmt yuv420p "$@" "$file"
}
find "$real" -name '*.avi' | sort | sed "s/.*/file '&'/" >"$out/list.txt"
for number in 0 1 2 3 4; do
    start=$((number * 20))
    encode "h264-$number.mp4" $start 10 340:256 -c:v libx264 -preset medium
    encode "hevc-$number.mp4" $start 10 340:256 -c:v libx265 -x265-params log-level=none
    encode "vp9-$number.webm" $start 10 340:256 -c:v libvpx-vp9 -b:v 500k -cpu-used 4
    encode "av1-$number.mp4" $start 10 340:256 -c:v libsvtav1 -preset 8
done
encode h264-720p.mp4 0 90 1280:720 -c:v libx264 -preset veryfast
find "$real" -name '*.avi' | sort | while read -r path; do ln -sf "$path" "$out/"; done
rm "$out/list.txt"
