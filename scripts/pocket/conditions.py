"""The conditions that pocket knows, and all that training says about each: texts, words, how often it is drawn.

How a condition looks is in scripts/pocket/render.py, whose RENDERERS has the same names. A name with a slash is a variant:
"night/unlit" is night with other texts and another look.
"""

from __future__ import annotations

# One plain instruction for each condition, for everything that measures the model. The keys are the conditions that the
# model can be taught (`--only`).
TEXTS = {
    "snow": "make it a snowy day, snow on the ground and falling snow",
    "night": "make it night, dark sky and street lamps",
    "fog": "make it foggy, distant things fade into grey haze",
    "rain": "make it rainy, rain streaks and wet ground",
    "dusk": "make it dusk, after sunset",
    "dawn": "make it dawn, before sunrise",
    "overcast": "make it overcast, flat grey clouds and no shadows",
    "glare": "make it low sun with strong glare",
    "dust": "make it a dust storm, brown haze",
}

# Phrases for the change itself: FRAMES put them into sentences.
PHRASES = {
    "snow": "snow|snowy|a snowy day|falling snow|snowfall|winter|a winter day with snow|a snowstorm|a blizzard|heavy snow|"
    "light snow|snow on the ground|deep snow|covered in snow|a snow-covered street|snowy weather|winter snow, grey sky|"
    "snow on the ground, roofs and trees, falling snow|fresh snow|snow flurries|dense falling snow",
    "night": "night|at night|nighttime|night time|a dark night|midnight|late at night|in the dark|after dark|a night scene|"
    "dark sky and street lamps|night, low light|darkness|a city at night|dark sky, street lamps and lit headlights|"
    "night with street lamps and headlights|"
    "night driving|dark",
    "fog": "fog|foggy|in fog|dense fog|thick fog|light fog|mist|misty|a misty day|haze|hazy|heavy fog|a foggy day|"
    "low visibility fog|distant things fade into grey haze|foggy weather|morning fog",
    "rain": "rain|rainy|a rainy day|raining|in the rain|heavy rain|light rain|a downpour|a heavy downpour|pouring rain|"
    "wet ground with reflections|rain streaks, wet ground|rainy weather|a rainstorm|wet road and rain|drizzle|"
    "a thunderstorm with rain|wet weather",
    "dusk": "dusk|at dusk|sunset|after sunset|evening|twilight|evening light|orange and violet sky|a sunset sky|nightfall|"
    "dim evening light",
    "dawn": "dawn|at dawn|before sunrise|early morning|sunrise|daybreak|pale pink sky|first light|pale pink sky, light mist",
    "overcast": "overcast|an overcast day|cloudy|a cloudy day|grey clouds|flat grey clouds, no shadows|a grey sky|"
    "dull weather|cloudy weather|clouds|flat light, muted colours",
    "glare": "glare|low sun|strong glare|against the low sun|sun glare|backlight|backlit|blinding sun|"
    "strong glare, warm light|the sun in the camera|bright low sun",
    "dust": "dust|a dust storm|a sandstorm|brown haze|dusty air|sand in the air|a dusty day|blowing sand|"
    "dust storm, brown haze|desert dust|smog",
    "same": "no change|a clear day|unchanged|the same|as it is|nothing|daylight|a photo|original|clear weather|keep it",
}  # fmt: skip

# Words that say how much, and the severities that they mean in a text without a number.
DEGREES = {
    "light|slight|a little|mild|faint|gentle|weak": (20, 25, 30, 35),
    "heavy|strong|very strong|extreme|severe|intense": (85, 90, 95, 100),
}

# Texts that ask for another look of a condition, by the renderer's name for it.
VARIANTS = {
    "snow/lying": "snow on the ground, no snowfall|lying snow, clear air|snow on the ground but no falling snow|"
    "a snow-covered street, no snowflakes|after the snowfall, snow on the ground|lying snow without snowfall|"
    "snow on the ground, no falling snow",
    "night/unlit": "an unlit night|unlit night|a night without street lamps|a pitch-dark night, no street lamps|"
    "night on an unlit road|night, no lamps, no lit windows|a dark country road at night, unlit|night, lights out",
    "rain/wet": "a wet road after the rain|wet ground, no falling rain|after the rain|a wet street, the rain has stopped|"
    "wet ground without raindrops|wet road, no rain",
}  # fmt: skip

# Which words mean a condition; one that stands under two conditions decides nothing beside others.
KEYWORDS = {
    "snow": "snow snowy snowfall snowflakes snowstorm blizzard flurries winter",
    "night": "night nighttime midnight dark darkness",
    "fog": "fog foggy mist misty haze hazy visibility morning grey",
    "rain": "rain rainy raining rainstorm downpour drizzle thunderstorm wet dark",
    "dusk": "dusk sunset evening twilight nightfall dark violet",
    "dawn": "dawn sunrise daybreak morning mist first pink",
    "overcast": "overcast cloudy clouds dull flat grey",
    "glare": "glare backlight backlit sun",
    "dust": "dust dusty sandstorm sand desert smog haze visibility",
}

# How often each condition is drawn for a training pair. Snow, rain and night get more, because flakes, streaks and lights
# have to be learned beside the look of the scene. With three nights in five pairs most other conditions got worse. "same"
# stands for texts that ask for no change.
SHARES = {
    "snow": 56, "snow/lying": 24, "night": 50, "night/unlit": 4, "rain": 40, "rain/wet": 4, "fog": 28, "dusk": 16,
    "dawn": 14, "overcast": 12, "glare": 14, "dust": 18, "same": 5,
}  # fmt: skip

# How many times more often a condition is drawn while the crops are too small to show a scene.
LOCAL = {"snow": 2, "rain": 4, "night": 2}

# Conditions in which the lamps and windows that a photograph shows are on.
LIT = ("night", "dusk")
