/* test_streams.c - bitstreams: written out, and random ones against a decoder that goes bit by bit. */
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "blob.h"
#include "blob_writer.h"
#include "check.h"

/* The code byte of family 1. */
#define RICE(order) (16U + (order))

/* The code of each value 0, 1, 2 ... (exp-Golomb: the paper's table 2; section 3). */
static const struct {
    unsigned code;
    const char *words[9];
} codes[] = {
    {0, {"1", "010", "011", "00100", "00101", "00110", "00111", "0001000", NULL}},
    {1, {"10", "11", "0100", "0101", "0110", "0111", "001000", "001001", NULL}},
    {2, {"100", "101", "110", "111", "01000", "01001", "01010", "01011", NULL}},
    {3, {"1000", "1001", "1010", "1011", "1100", "1101", "1110", "1111", "010000"}},
    {4, {"10000", "10001", "10010", "10011", "10100", "10101", "10110", "10111", "11000"}},
    {5, {"100000", "100001", "100010", "100011", "100100", "100101", "100110", "100111", "101000"}},
    {RICE(0), {"1", "01", "001", "0001", "00001", "000001", "0000001", "00000001", "000000001"}},
    {RICE(1), {"10", "11", "010", "011", "0010", "0011", "00010", "00011", "000010"}},
    {RICE(2), {"100", "101", "110", "111", "0100", "0101", "0110", "0111", "00100"}},
};

/* Single codewords: exp-Golomb 65535 is 16 - k zeros (0 if k > 16), then 65535 + 2^k; Golomb-Rice from 16 * 2^k on is 16
 * zeros, then the rest in exp-Golomb. */
static const struct {
    unsigned code;
    uint32_t value;
    const char *bits;
} singles[] = {
    {0, 65535, "0000000000000000 10000000000000000"},
    {1, 65535, "000000000000000 10000000000000001"},
    {5, 65535, "00000000000 10000000000011111"},
    {15, 65535, "0 10111111111111111"},
    {RICE(0), 15, "000000000000000 1"},
    {RICE(0), 16, "0000000000000000 1"},
    {RICE(0), 17, "0000000000000000 010"},
    {RICE(1), 31, "000000000000000 11"},
    {RICE(1), 32, "0000000000000000 10"},
    {RICE(15), 65535, "01 111111111111111"},
    {RICE(0), 65535, "0000000000000000 000000000000000 1111111111110000"}, /* 65519 + 1, the longest codeword: 47 bits */
    {RICE(11), 65535, "0000000000000000 0000 1000011111111111"},
};

static uint16_t values[70000];

static bool read_one(const uint8_t *data, size_t size, uint32_t count, unsigned code, uint32_t limit) {
    static bsx_table table;
    bsx_build_table(&table, bsx_code_of((uint8_t)code), limit, 0, 2, NULL);
    bsx_stream stream = {data, (uint32_t)size, count, values, false};
    bsx_read_by_table(&stream, 1, &table, NULL);
    const bool ok = stream.ok;
    bsx_read_direct(&stream, 1, &table, NULL);
    CHECK(stream.ok == ok);
    return ok;
}

static bool read_text(const char *text, uint32_t count, unsigned code, uint32_t limit) {
    uint8_t bytes[64];
    return read_one(bytes, pack_bits(text, bytes), count, code, limit);
}

static void test_codes(void) {
    for (size_t row = 0; row < sizeof codes / sizeof codes[0]; row++) {
        const unsigned code = codes[row].code;
        char all[200] = "";
        uint32_t count = 0;
        for (; count < 9 && codes[row].words[count]; count++) {
            const char *word = codes[row].words[count];
            CHECK_ROW(read_text(word, 1, code, 9) && values[0] == count, word);
            CHECK_ROW(bsx_code_bits(count, bsx_code_of((uint8_t)code)) == strlen(word), word);
            CHECK_ROW(!read_text(word, 1, code, count), word); /* not below the limit */
            strcat(all, word);
        }
        CHECK_ROW(read_text(all, count, code, 65536), all);
        for (uint32_t i = 0; i < count; i++) CHECK_ROW(values[i] == i, all);
    }
    for (size_t i = 0; i < sizeof singles / sizeof singles[0]; i++) {
        CHECK_ROW(read_text(singles[i].bits, 1, singles[i].code, 65536), singles[i].bits);
        CHECK_ROW(values[0] == singles[i].value, singles[i].bits);
        CHECK_ROW(!read_text(singles[i].bits, 1, singles[i].code, singles[i].value), singles[i].bits);
    }
}

static void test_ends(void) {
    CHECK(read_text("", 0, 0, 9));
    CHECK(!read_text("", 1, 0, 9));
    CHECK(read_text("1 011", 2, 0, 9));
    CHECK(!read_text("1 011", 1, 0, 9));            /* a codeword too many */
    CHECK(!read_text("1 011", 3, 0, 9));            /* one too few: padding is no codeword */
    CHECK(!read_text("1 011 0000 0000 0000", 2, 0, 9)); /* a byte too many */
    CHECK(!read_text("1 011 0001", 2, 0, 9));       /* padding is not zero */
    CHECK(!read_text("0000 0001", 1, 0, 65536));    /* cut off in the suffix */
    CHECK(!read_text("0000 0000", 1, 0, 65536));    /* cut off in the prefix */
    CHECK(!read_text("0000 0000", 0, 0, 9));
    CHECK(read_text("1111 1111", 8, 0, 9));
    CHECK(!read_text("1111 1111", 7, 0, 9));
    CHECK(!read_text("1111 1111 1", 8, 0, 9));
    CHECK(!read_text("00000000000000000 100000000000000000", 1, 0, 65536)); /* 131071 */
    CHECK(!read_text("0000000000000000 0000000000000000 11111111111110000", 1, RICE(0), 65536)); /* 131071 */
    CHECK(!read_text("00000000 00000000", 1, RICE(0), 65536)); /* an escape and nothing */
    CHECK(!read_text("00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000", 1, RICE(0), 65536));
}

/* One bit at a time, as section 3 reads. */
static bool read_slowly(const uint8_t *data, size_t size, uint32_t count, unsigned code, uint32_t limit,
                        uint16_t *out) {
    const unsigned order = code % 16;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        unsigned zeros = 0;
        for (; at < 8 * size && !(data[at / 8] >> (7 - at % 8) & 1); at++) zeros++;
        const unsigned plain = code < 16 ? 0 : zeros < 16 ? zeros : 16; /* zeros that a quotient has, one by one */
        const unsigned width = zeros - plain + order + 1;
        if (zeros - plain > 16 || at + width > 8 * size) return false;
        uint64_t x = 0;
        for (unsigned bit = 0; bit < width; bit++, at++) x = 2 * x + (data[at / 8] >> (7 - at % 8) & 1);
        x += ((uint64_t)plain << order) - (UINT64_C(1) << order);
        if (x >= limit) return false;
        out[i] = (uint16_t)x;
    }
    if (8 * size - at >= 8) return false;
    for (; at < 8 * size; at++) {
        if (data[at / 8] >> (7 - at % 8) & 1) return false;
    }
    return true;
}

static uint32_t random_state = 1;

static uint32_t next_random(uint32_t below) {
    random_state = random_state * 1664525U + 1013904223U;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* A valid stream of random values, mostly small; its bytes are in memory of exactly its size. */
static uint8_t *random_stream(uint32_t count, unsigned code, uint32_t limit, size_t *size) {
    const unsigned order = code % 16;
    uint8_t *bits = calloc(1, count * 6 + 1);
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t width = 1 + next_random(16);
        const uint32_t x = (next_random(4) ? next_random(1U << width) : next_random(4)) % limit;
        const unsigned q = code < 16 ? 0 : x >> order < 16 ? x >> order : 16; /* zeros before an exp-Golomb codeword */
        const uint64_t word = x - ((uint64_t)q << order) + (UINT64_C(1) << order);
        unsigned length = order + 1;
        while (word >> length) length++;
        length += length - order - 1 + q;
        for (unsigned bit = length; bit-- > 0; at++) {
            if (word >> bit & 1) bits[at / 8] = (uint8_t)(bits[at / 8] | 0x80 >> at % 8);
        }
    }
    *size = (at + 7) / 8;
    uint8_t *exact = malloc(*size + (*size == 0));
    memcpy(exact, bits, *size);
    free(bits);
    return exact;
}

/* Groups of four streams, some of them damaged, against the slow decoder. */
static void test_random(void) {
    static bsx_table table;
    for (int round = 0; round < 4000; round++) {
        const unsigned code = next_random(32);
        const uint32_t limit = 1 + next_random(next_random(2) ? 65536 : 40);
        bsx_build_table(&table, bsx_code_of((uint8_t)code), limit, 0, 2, NULL);
        const unsigned lanes = 1 + next_random(BSX_GROUP);
        bsx_stream streams[BSX_GROUP];
        for (unsigned i = 0; i < lanes; i++) {
            size_t size;
            const uint32_t count = next_random(next_random(2) ? 300 : 12);
            uint8_t *data = random_stream(count, code, limit, &size);
            if (size > 0 && next_random(3) == 0) data[next_random((uint32_t)size)] ^= (uint8_t)(1U << next_random(8));
            const uint32_t claimed = next_random(6) ? count : next_random(300);
            const uint32_t kept = (uint32_t)size - (size > 0 && next_random(8) == 0);
            bsx_stream stream = {data, kept, claimed, malloc(2 * (size_t)claimed + BSX_STREAM_SLOP), false};
            streams[i] = stream;
        }
        if (round % 2) bsx_read_direct(streams, lanes, &table, NULL);
        else bsx_read_by_table(streams, lanes, &table, NULL);
        for (unsigned i = 0; i < lanes; i++) {
            const bsx_stream *s = &streams[i];
            const bool expected = read_slowly(s->data, s->size, s->count, code, limit, values);
            CHECK(s->ok == expected);
            CHECK(!expected || memcmp(s->elements, values, 2 * (size_t)s->count) == 0);
            free(s->elements);
            free((void *)(uintptr_t)s->data);
        }
    }
}

void test_streams(void) {
    test_codes();
    test_ends();
    test_random();
}
