/* crc32c.c - CRC-32C (section 2), by the processor's instruction where it has one. */
#include "crc32c.h"

#include <string.h>

#include "bits.h"
#include "bsx.h"

/* tables[t][n] is the CRC of byte n followed by t zero bytes. It is linear in the bits of n, so that eight numbers, the
 * CRCs of 1, 2, 4 ... 128, give the other 248. */
#define BIT(n, i, crc) ((n) >> (i)&1 ? (crc) : 0U)
#define ENTRY(n, a, b, c, d, e, f, g, h)                                                                               \
    (BIT(n, 0, a) ^ BIT(n, 1, b) ^ BIT(n, 2, c) ^ BIT(n, 3, d) ^ BIT(n, 4, e) ^ BIT(n, 5, f) ^ BIT(n, 6, g) ^          \
     BIT(n, 7, h))
#define ENTRIES_4(n, ...)                                                                                              \
    ENTRY((n), __VA_ARGS__), ENTRY((n) + 1, __VA_ARGS__), ENTRY((n) + 2, __VA_ARGS__), ENTRY((n) + 3, __VA_ARGS__)
#define ENTRIES_16(n, ...)                                                                                             \
    ENTRIES_4((n), __VA_ARGS__), ENTRIES_4((n) + 4, __VA_ARGS__), ENTRIES_4((n) + 8, __VA_ARGS__),                     \
        ENTRIES_4((n) + 12, __VA_ARGS__)
#define ENTRIES_64(n, ...)                                                                                             \
    ENTRIES_16((n), __VA_ARGS__), ENTRIES_16((n) + 16, __VA_ARGS__), ENTRIES_16((n) + 32, __VA_ARGS__),                \
        ENTRIES_16((n) + 48, __VA_ARGS__)
#define TABLE(...)                                                                                                     \
    {                                                                                                                  \
        ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__),                         \
            ENTRIES_64(192, __VA_ARGS__)                                                                               \
    }

static const uint32_t tables[8][256] = {
    TABLE(0xF26B8303, 0xE13B70F7, 0xC79A971F, 0x8AD958CF, 0x105EC76F, 0x20BD8EDE, 0x417B1DBC, 0x82F63B78),
    TABLE(0x13A29877, 0x274530EE, 0x4E8A61DC, 0x9D14C3B8, 0x3FC5F181, 0x7F8BE302, 0xFF17C604, 0xFBC3FAF9),
    TABLE(0xA541927E, 0x4F6F520D, 0x9EDEA41A, 0x38513EC5, 0x70A27D8A, 0xE144FB14, 0xC76580D9, 0x8B277743),
    TABLE(0xDD45AAB8, 0xBF672381, 0x7B2231F3, 0xF64463E6, 0xE964B13D, 0xD725148B, 0xABA65FE7, 0x52A0C93F),
    TABLE(0x38116FAC, 0x7022DF58, 0xE045BEB0, 0xC5670B91, 0x8F2261D3, 0x1BA8B557, 0x37516AAE, 0x6EA2D55C),
    TABLE(0xEF306B19, 0xDB8CA0C3, 0xB2F53777, 0x6006181F, 0xC00C303E, 0x85F4168D, 0x0E045BEB, 0x1C08B7D6),
    TABLE(0x68032CC8, 0xD0065990, 0xA5E0C5D1, 0x4E2DFD53, 0x9C5BFAA6, 0x3D5B83BD, 0x7AB7077A, 0xF56E0EF4),
    TABLE(0x493C7D27, 0x9278FA4E, 0x211D826D, 0x423B04DA, 0x847609B4, 0x0D006599, 0x1A00CB32, 0x34019664),
};

uint32_t bsx_crc32c_table(uint32_t crc, const void *data, size_t size) {
    const uint8_t *p = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        const uint32_t low = crc ^ bsx_load_le32(p);
        const uint32_t high = bsx_load_le32(p + 4);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^
              tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
    }
    for (; size > 0; size--, p++) crc = crc >> 8 ^ tables[0][(crc ^ *p) & 255];
    return ~crc;
}

/* Pieces of data whose CRCs are computed in turns: the instruction takes three cycles, and one can begin in each. */
#define SIDE_BY_SIDE 4U

#if defined(__GNUC__) && defined(__x86_64__)
#include <cpuid.h>
#include <nmmintrin.h>

#define INSTRUCTION "sse4.2"

static bool has_instruction(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_SSE4_2;
}

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *p, size_t size) {
    uint64_t state = ~crc;
    for (; size >= 8; size -= 8, p += 8) state = _mm_crc32_u64(state, bsx_load_le64(p));
    for (; size > 0; size--, p++) state = _mm_crc32_u8((uint32_t)state, *p);
    return ~(uint32_t)state;
}

/* The CRCs of the first `size` bytes of four pieces; size is a multiple of 8. */
__attribute__((target("sse4.2"))) static void crcs_by_instruction(const uint8_t *const *data, size_t size,
                                                                  uint32_t *crcs) {
    uint64_t a = UINT32_MAX, b = UINT32_MAX, c = UINT32_MAX, d = UINT32_MAX;
    for (size_t i = 0; i < size; i += 8) {
        a = _mm_crc32_u64(a, bsx_load_le64(data[0] + i));
        b = _mm_crc32_u64(b, bsx_load_le64(data[1] + i));
        c = _mm_crc32_u64(c, bsx_load_le64(data[2] + i));
        d = _mm_crc32_u64(d, bsx_load_le64(data[3] + i));
    }
    crcs[0] = ~(uint32_t)a;
    crcs[1] = ~(uint32_t)b;
    crcs[2] = ~(uint32_t)c;
    crcs[3] = ~(uint32_t)d;
}

#elif defined(__GNUC__) && defined(__aarch64__) && (defined(__linux__) || defined(__ARM_FEATURE_CRC32))
#if !defined(__ARM_FEATURE_CRC32)
#include <sys/auxv.h>
#endif

#define INSTRUCTION "armv8"

static bool has_instruction(void) {
#if defined(__ARM_FEATURE_CRC32)
    return true;
#else
    return getauxval(AT_HWCAP) >> 7 & 1; /* HWCAP_CRC32 of <asm/hwcap.h> */
#endif
}

/* Written in assembly, because compilers disagree on how a function asks for the crc extension. */
static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *p, size_t size) {
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(bsx_load_le64(p)));
    }
    for (; size > 0; size--, p++) {
        __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)*p));
    }
    return ~crc;
}

static void crcs_by_instruction(const uint8_t *const *data, size_t size, uint32_t *crcs) {
    for (unsigned i = 0; i < SIDE_BY_SIDE; i++) crcs[i] = UINT32_MAX;
    for (size_t i = 0; i < size; i += 8) {
        for (unsigned j = 0; j < SIDE_BY_SIDE; j++) {
            const uint64_t word = bsx_load_le64(data[j] + i);
            __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crcs[j]) : "r"(word));
        }
    }
    for (unsigned i = 0; i < SIDE_BY_SIDE; i++) crcs[i] = ~crcs[i];
}

#else
#define INSTRUCTION "table"

static bool has_instruction(void) { return false; }

static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *p, size_t size) {
    return bsx_crc32c_table(crc, p, size);
}

static void crcs_by_instruction(const uint8_t *const *data, size_t size, uint32_t *crcs) {
    for (unsigned i = 0; i < SIDE_BY_SIDE; i++) crcs[i] = bsx_crc32c_table(0, data[i], size);
}
#endif

static uint32_t crc_more(uint32_t crc, const void *data, size_t size, bool instruction) {
    return instruction ? crc_by_instruction(crc, data, size) : bsx_crc32c_table(crc, data, size);
}

bool bsx_crc32c_instruction(void) { return has_instruction(); }

void bsx_crc32c_many(const uint8_t *const *data, const size_t *sizes, uint32_t *crcs, unsigned count, bool instruction) {
    unsigned i = 0;
    for (; instruction && i + SIDE_BY_SIDE <= count; i += SIDE_BY_SIDE) {
        size_t common = sizes[i];
        for (unsigned j = 1; j < SIDE_BY_SIDE; j++) common = sizes[i + j] < common ? sizes[i + j] : common;
        common -= common % 8;
        crcs_by_instruction(data + i, common, crcs + i);
        for (unsigned j = i; j < i + SIDE_BY_SIDE; j++) {
            crcs[j] = crc_by_instruction(crcs[j], data[j] + common, sizes[j] - common);
        }
    }
    for (; i < count; i++) crcs[i] = crc_more(0, data[i], sizes[i], instruction);
}

uint32_t bsx_crc32c_more(uint32_t crc, const void *data, size_t size) {
    return crc_more(crc, data, size, has_instruction());
}

uint32_t bsx_crc32c(const void *data, size_t size) { return bsx_crc32c_more(0, data, size); }

const char *bsx_crc32c_name(void) { return has_instruction() ? INSTRUCTION : "table"; }
