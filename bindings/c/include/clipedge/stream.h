/* clipedge_stream: a camera's frames go in at any rate, events come out: a label appeared, a label left. It gives the
   events of the Python package's Stream. The rules of clipedge.h hold here, too.

Frames
  - clipedge_stream_push glances at a frame: 64 x 64 samples of every channel, as the camera delivers it, averaged to
    16 x 16 cells. A frame of the same format and size in which no cell differs by more than 8 of 255 from the last
    frame that was not skipped shows nothing new: it repeats the last answer. Any other one is copied, waits for the
    stream's own thread, which asks the model, and takes the place of one that still waits: the model sees the newest
    frame, and never a queue.
  - The answer to a frame are the probabilities by which clipedge_decide decides if the bank has negatives or a fitted
    rule, else those of clipedge_classify. Without either a softmax model's probabilities of all labels sum to 1, and
    one of them may be "there" whatever the camera sees.

Events
  - With t the seconds since the frame before and p the answer, s += (1 - exp(-t / time_constant)) (p - s) smooths each
    probability; the first answer counts whole. A label appeared once its s has been at `enter` or above for
    `enter_seconds`, and left once it has been below `leave` for `leave_seconds`. Time is that of the frames.
  - What is present when the stream is closed has not left: no event says so.

Ownership and threads
  - A stream needs its model and its bank until it is freed. Both may serve other streams at the same time.
  - All calls but clipedge_stream_free may come from any threads at once: one may push, another one wait for events.
  - Model options with `sleeping` 1 suit a camera: the engine's threads leave the cores free between frames.

A camera's loop:

    clipedge_stream *stream = NULL;
    clipedge_event event = CLIPEDGE_EVENT;
    if (clipedge_stream_create(model, bank, NULL, &stream)) return fail();
    while (camera_read(&image, &seconds)) {
        if (clipedge_stream_push(stream, &image, seconds, 0)) return fail();
        while (!clipedge_stream_next(stream, 0, &event) && event.label)
            printf("%.2f %s %s\n", event.timestamp, event.label, event.kind == CLIPEDGE_LEFT ? "left" : "appeared");
    }
    clipedge_stream_free(stream);
*/
#ifndef CLIPEDGE_STREAM_H
#define CLIPEDGE_STREAM_H

#include "clipedge/clipedge.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct clipedge_stream clipedge_stream;

/* When a label appeared, and when it left. Start from CLIPEDGE_STREAM_OPTIONS: 0 seconds are a time like any other. */
typedef struct clipedge_stream_options {
    size_t size;
    double enter_seconds;
    double leave_seconds;
    double time_constant; /* 0: nothing is smoothed */
    const double *enter;  /* `enter_count` thresholds: one for all labels, or one for each */
    const double *leave;  /* the same, none above `enter` */
    size_t enter_count;   /* 0: those that were fitted to the bank, or 0.5 */
    size_t leave_count;   /* 0: 0.7 of `enter` */
} clipedge_stream_options;
#define CLIPEDGE_STREAM_OPTIONS {sizeof(clipedge_stream_options), 0.3, 0.5, 0.5, NULL, NULL, 0, 0}

typedef enum clipedge_event_kind {
    CLIPEDGE_NO_EVENT = 0, /* none came in time */
    CLIPEDGE_APPEARED = 1,
    CLIPEDGE_LEFT = 2,
    CLIPEDGE_ENDED = 3     /* none comes any more: the stream is closed, and every event was taken */
} clipedge_event_kind;

typedef struct clipedge_event {
    size_t size;
    int32_t kind;       /* a clipedge_event_kind */
    int32_t number;     /* the label's in the bank */
    const char *label;  /* belongs to the bank; NULL unless the kind is CLIPEDGE_APPEARED or CLIPEDGE_LEFT */
    double timestamp;   /* of the frame that settled it */
    double since;       /* of the frame that passed the threshold */
    double probability; /* the smoothed one at `timestamp` */
} clipedge_event;
#define CLIPEDGE_EVENT {sizeof(clipedge_event), CLIPEDGE_NO_EVENT, 0, NULL, 0, 0, 0}

/* Frames of a stream: all that were seen are one of the others, or still wait for the model. */
typedef struct clipedge_counts {
    size_t size;
    int64_t seen;
    int64_t unchanged; /* showed what the last one did: the model was not asked */
    int64_t late;      /* a newer one came before the model was free */
    int64_t answered;
} clipedge_counts;
#define CLIPEDGE_COUNTS {sizeof(clipedge_counts), 0, 0, 0, 0}

/* `options` may be NULL. Fails with CLIPEDGE_USAGE for thresholds and times that cannot be right. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_stream_create(const clipedge_model *model,
                                                                      const clipedge_bank *bank,
                                                                      const clipedge_stream_options *options,
                                                                      clipedge_stream **stream);

/* Ends the stream. What waits is not answered any more; an answer that the model is giving is waited for. */
CLIPEDGE_API void clipedge_stream_free(clipedge_stream *stream);

/* Hand over a frame, and the time in seconds when it was taken. With `wait` 0 the model is never waited for; with 1 the
   call returns when no other frame waits, and none is ever late: for files. Fails with CLIPEDGE_USAGE for a time that
   is not later than the last frame's and for a stream that was closed, with CLIPEDGE_IMAGE_ERROR for what is no frame,
   and with what ended the stream's thread. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_stream_push(clipedge_stream *stream,
                                                                    const clipedge_image *image, double timestamp,
                                                                    int32_t wait);

/* The next event, waited for `timeout` seconds: 0 does not wait, INFINITY has no limit. Events wait until they are
   taken. Once all were, it fails with what ended the stream's thread. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_stream_next(clipedge_stream *stream, double timeout,
                                                                    clipedge_event *event);

/* Answer what still waits, and take no more frames. Fails with what ended the stream's thread before, unless another
   call has told. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_stream_close(clipedge_stream *stream);

CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_stream_counts(const clipedge_stream *stream,
                                                                      clipedge_counts *counts);

/* What is known after the newest frame that was answered or unchanged: its time, and for each label of the bank the
   smoothed probability and 1 or 0 for present or not. Each may be NULL. Before the first answer the time is NAN, and
   all others are 0. `capacity` is that of both buffers. */
CLIPEDGE_API CLIPEDGE_MUST_USE clipedge_status clipedge_stream_presence(const clipedge_stream *stream,
                                                                        double *timestamp, double *smoothed,
                                                                        uint8_t *present, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
