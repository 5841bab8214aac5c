/* Labels that appear in a video and leave it, by a bundle's prompt bank:  camera_loop BUNDLE BANK [VIDEO.y4m]
   Of a file every frame counts, at the video's own times. Without one the frames come from standard input, from a
   camera: there the newest one counts, at the time when it came.

       ffmpeg -f v4l2 -i /dev/video0 -pix_fmt yuv420p -f yuv4mpegpipe - | camera_loop BUNDLE BANK */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clipedge/stream.h"

/* A YUV4MPEG2 file: a line of fields, then frames, each a line "FRAME" and the planes Y, U and V. */
typedef struct source {
    FILE *file;
    int is_live;
    int rate[2]; /* frames in so many seconds */
    long frames; /* read so far */
    size_t bytes;
    uint8_t *memory;
    clipedge_image image;
} source;

static int read_field(source *video, const char *field) {
    const char *value = field + 1;
    switch (field[0]) {
        case 'W': return sscanf(value, "%d", &video->image.width) == 1;
        case 'H': return sscanf(value, "%d", &video->image.height) == 1;
        case 'F': return sscanf(value, "%d:%d", &video->rate[0], &video->rate[1]) == 2;
        case 'C': return strncmp(value, "420", 3) == 0 && strncmp(value, "420p1", 5) != 0; /* 420p10 has 10 bits */
        case 'X':
            if (strcmp(value, "COLORRANGE=FULL") == 0) video->image.range = CLIPEDGE_FULL;
            return 1;
        default: return 1;
    }
}

/* Returns 0 for what is no YUV4MPEG2 with 4:2:0 chroma and 8 bits. */
static int read_header(source *video) {
    char line[512];
    clipedge_image image = CLIPEDGE_IMAGE;
    video->image = image;
    video->image.format = CLIPEDGE_I420;
    if (!fgets(line, sizeof(line), video->file) || strncmp(line, "YUV4MPEG2 ", 10) != 0) return 0;
    for (char *field = strtok(line + 10, " \n"); field; field = strtok(NULL, " \n")) {
        if (!read_field(video, field)) return 0;
    }
    if (video->rate[0] < 1 || video->rate[1] < 1 || video->image.width < 1 || video->image.height < 1) return 0;
    if (video->image.width > 65535 || video->image.height > 65535) return 0;
    size_t width = (size_t)video->image.width, height = (size_t)video->image.height;
    size_t half_width = (width + 1) / 2, half = half_width * ((height + 1) / 2);
    video->bytes = width * height + 2 * half;
    video->memory = malloc(video->bytes);
    for (int i = 0; i < 3; ++i) video->image.strides[i] = i == 0 ? width : half_width;
    if (!video->memory) return 0;
    video->image.planes[0] = video->memory;
    video->image.planes[1] = video->memory + width * height;
    video->image.planes[2] = video->image.planes[1] + half;
    return 1;
}

static int read_frame(source *video, double *seconds) {
    char line[512];
    struct timespec now;
    if (!fgets(line, sizeof(line), video->file) || strncmp(line, "FRAME", 5) != 0) return 0;
    if (fread(video->memory, 1, video->bytes, video->file) != video->bytes) return 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *seconds = video->is_live ? (double)now.tv_sec + 1e-9 * (double)now.tv_nsec
                              : (double)video->frames * video->rate[1] / video->rate[0];
    ++video->frames;
    return 1;
}

/* Prints the events that wait; returns 0 where the stream failed. */
static int print_events(clipedge_stream *stream) {
    clipedge_event event = CLIPEDGE_EVENT;
    for (;;) {
        if (clipedge_stream_next(stream, 0, &event)) return 0;
        if (!event.label) return 1;
        printf("%8.2f s  %s %s\n", event.since, event.label, event.kind == CLIPEDGE_LEFT ? "left" : "appeared");
        fflush(stdout);
    }
}

static int watch(clipedge_stream *stream, source *video) {
    double seconds;
    clipedge_counts counts = CLIPEDGE_COUNTS;
    while (read_frame(video, &seconds)) {
        if (clipedge_stream_push(stream, &video->image, seconds, !video->is_live) || !print_events(stream)) return 0;
    }
    if (clipedge_stream_close(stream) || !print_events(stream) || clipedge_stream_counts(stream, &counts)) return 0;
    printf("%lld frames: %lld unchanged, %lld late, %lld answered\n", (long long)counts.seen,
           (long long)counts.unchanged, (long long)counts.late, (long long)counts.answered);
    return 1;
}

static int run(const char *bundle, const char *bank_name, source *video) {
    clipedge_model *model = NULL;
    clipedge_bank *bank = NULL;
    clipedge_stream *stream = NULL;
    clipedge_options options = CLIPEDGE_OPTIONS;
    options.sleeping = 1; /* at a camera's pace the engine's threads can sleep between frames */
    int done = !clipedge_model_load(bundle, &options, &model) && !clipedge_bank_open(model, bank_name, &bank) &&
               !clipedge_stream_create(model, bank, NULL, &stream) && watch(stream, video);
    if (!done) fprintf(stderr, "%s\n", clipedge_last_error());
    clipedge_stream_free(stream);
    clipedge_bank_free(bank);
    clipedge_model_free(model);
    return done ? 0 : 1;
}

int main(int count, char **arguments) {
    if (count != 3 && count != 4) {
        fprintf(stderr, "usage: %s BUNDLE BANK [VIDEO.y4m]\n", arguments[0]);
        return 2;
    }
    source video = {0};
    int failed = 2;
    video.is_live = count == 3;
    video.file = video.is_live ? stdin : fopen(arguments[3], "rb");
    if (video.file && read_header(&video)) {
        failed = run(arguments[1], arguments[2], &video);
    } else {
        fprintf(stderr, "expected a YUV4MPEG2 video with 4:2:0 chroma and 8 bits: ffmpeg -pix_fmt yuv420p writes it\n");
    }
    free(video.memory);
    if (video.file && !video.is_live) fclose(video.file);
    return failed;
}
