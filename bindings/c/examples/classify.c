/* Classify a picture with a bundle's prompt bank:  classify BUNDLE BANK PICTURE.ppm
   Prints the best label and its probability. */
#include <stdio.h>
#include <stdlib.h>

#include "clipedge/clipedge.h"

/* A binary PPM, which every image tool writes: "P6", width, height, 255, then RGB. Returns NULL for anything else. */
static uint8_t *read_ppm(const char *path, int32_t *width, int32_t *height) {
    uint8_t *pixels = NULL;
    FILE *file = fopen(path, "rb");
    if (file && fscanf(file, "P6 %d %d 255", width, height) == 2 && fgetc(file) != EOF && *width > 0 && *height > 0) {
        size_t bytes = (size_t)*width * (size_t)*height * 3;
        pixels = malloc(bytes);
        if (pixels && fread(pixels, 1, bytes, file) != bytes) {
            free(pixels);
            pixels = NULL;
        }
    }
    if (file) fclose(file);
    return pixels;
}

static int print_best(const clipedge_bank *bank, const float *probabilities, size_t labels) {
    const char *label = NULL;
    size_t best = 0;
    for (size_t i = 1; i < labels; ++i) {
        if (probabilities[i] > probabilities[best]) best = i;
    }
    if (clipedge_bank_label(bank, best, &label)) return 1;
    printf("%s %.4f\n", label, probabilities[best]);
    return 0;
}

static int classify(const char *bundle, const char *bank_name, const clipedge_image *image) {
    clipedge_model *model = NULL;
    clipedge_bank *bank = NULL;
    clipedge_bank_info info = CLIPEDGE_BANK_INFO;
    float *probabilities = NULL;
    int failed = clipedge_model_load(bundle, NULL, &model) || clipedge_bank_open(model, bank_name, &bank) ||
                 clipedge_bank_describe(bank, &info);
    if (!failed) {
        size_t labels = (size_t)info.labels;
        probabilities = calloc(labels, sizeof(float));
        failed = !probabilities || clipedge_classify_images(model, bank, image, 1, probabilities, labels) ||
                 print_best(bank, probabilities, labels);
    }
    if (failed) fprintf(stderr, "%s\n", clipedge_last_error());
    free(probabilities);
    clipedge_bank_free(bank);
    clipedge_model_free(model);
    return failed;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: %s BUNDLE BANK PICTURE.ppm\n", arguments[0]);
        return 2;
    }
    clipedge_image image = CLIPEDGE_IMAGE;
    uint8_t *pixels = read_ppm(arguments[3], &image.width, &image.height);
    if (!pixels) {
        fprintf(stderr, "%s is no binary PPM with 8 bits a colour\n", arguments[3]);
        return 2;
    }
    image.planes[0] = pixels;
    image.strides[0] = (size_t)image.width * 3;
    image.format = CLIPEDGE_RGB8;
    int failed = classify(arguments[1], arguments[2], &image);
    free(pixels);
    return failed;
}
